"""Words of which the English prompts are made: first names, places, things, people, years.

The names are written once, without a space; which of them are one token is the tokenizer's matter,
see `vocabulary`. Every other word stands the same in the clean and in the corrupted prompt, so it
may be any number of tokens. Words that follow "a" begin with a consonant.
"""

__all__ = ["ADJECTIVES", "FEMALE", "MALE", "NAMES", "OBJECTS", "PEOPLE", "PERIODS", "PLACES"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _lines(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


#: Names of women; none that is as often a man's.
FEMALE: tuple[str, ...] = _words(
    """
    Abigail Alice Alison Amanda Amber Amelia Amy Andrea Angela Anita Ann Anna Anne April Barbara
    Betty Beverly Brenda Caroline Carol Catherine Charlotte Cheryl Christina Christine Claire Clara
    Cynthia Danielle Deborah Diana Diane Donna Dorothy Eleanor Elizabeth Ellen Emily Emma Erin Eva
    Eve Evelyn Fiona Florence Gloria Grace Hannah Heather Heidi Helen Helena Holly Irene Isabella
    Ivy Jane Janet Jasmine Jennifer Jenny Jessica Joan Joanna Joyce Judith Judy Julia Julie Karen
    Katherine Kate Kathleen Katie Kimberly Laura Lauren Leah Lily Linda Lisa Lucy Maggie Margaret
    Maria Marie Martha Mary Megan Melanie Melissa Michelle Molly Monica Nancy Naomi Natalie Natasha
    Nicole Nina Nora Olivia Pamela Patricia Paula Rachel Rebecca Rita Rosa Rose Ruby Ruth Sally
    Samantha Sandra Sara Sarah Sharon Sofia Sonia Sophia Sophie Stella Stephanie Susan Teresa
    Theresa Tina Valerie Vanessa Veronica Victoria Violet Virginia Wendy Zoe
    """
)

#: Names of men; none that is as often a woman's.
MALE: tuple[str, ...] = _words(
    """
    Aaron Adam Alan Albert Alexander Alfred Andre Andrew Anthony Anton Arnold Arthur Benjamin
    Bernard Brandon Brian Bruce Bryan Carl Carlos Charles Christopher Colin Connor Craig Curtis
    Daniel David Dennis Derek Diego Donald Douglas Duncan Edgar Edward Edwin Eric Ernest Ethan
    Eugene Felix Fernando Francis Frank Fred Frederick Gabriel Gary George Gerald Gilbert Gordon
    Graham Greg Gregory Harold Harry Harvey Henry Herbert Howard Hugh Ian Isaac Ivan Jack Jacob
    Jake James Jason Jeff Jeffrey Jeremy Jerry Jim Joe Joel John Jonathan Jose Joseph Joshua Juan
    Julian Justin Karl Keith Kenneth Kevin Kyle Lance Larry Lawrence Leo Leon Leonard Lewis Louis
    Lucas Luis Luke Marco Marcus Mario Mark Martin Matthew Max Michael Miguel Mike Nathan Neil
    Nicholas Norman Oliver Oscar Patrick Paul Pedro Peter Philip Phillip Ralph Raymond Richard Rick
    Robert Roger Ronald Ross Roy Russell Ryan Samuel Scott Sean Sebastian Seth Simon Stanley Stephen
    Steve Steven Stuart Ted Theodore Thomas Tim Timothy Todd Tom Tony Trevor Victor Vincent Walter
    Warren Wayne William Zachary
    """
)

#: All first names.
NAMES: tuple[str, ...] = FEMALE + MALE

#: Where two people may be together: after "the".
PLACES: tuple[str, ...] = _lines(
    """
    airport, aquarium, archive, arena, art gallery, bakery, bank, barber shop, barn, basement,
    beach, boathouse, bookshop, botanical garden, bowling alley, bridge, bus station, cabin, cafe,
    camp, canteen, castle, cathedral, cellar, chapel, church, cinema, circus, city hall, classroom,
    clinic, coffee shop, college, concert hall, corner shop, cottage, courthouse, dance hall, depot,
    dining hall, dock, embassy, exhibition, factory, fairground, farm, ferry, fire station, florist,
    forest, forge, garage, garden, greenhouse, grocery, gym, hall, harbour, hospital, hotel,
    ice rink, inn, kitchen, laboratory, lake, laundry, library, lighthouse, lodge, market, meadow,
    mill, monastery, museum, office, orchard, palace, park, pharmacy, pier, playground, pool, port,
    post office, quarry, restaurant, river, school, shelter, shop, stadium, station, studio,
    supermarket, swimming pool, tavern, temple, theatre, tower, town hall, university, valley,
    village, vineyard, warehouse, workshop, zoo
    """
)

#: What one person may give another: after "a" or "the".
OBJECTS: tuple[str, ...] = _lines(
    """
    backpack, badge, ball, balloon, banana, bandage, basket, battery, bell, belt, bicycle, blanket,
    book, bottle, bowl, box, bracelet, brush, bucket, button, cake, calendar, camera, candle, cap,
    card, carpet, chair, chessboard, coat, coin, comb, compass, cookie, cup, cushion, diary,
    dictionary, doll, drawing, drink, drum, feather, flag, flower, flute, folder, fork, gift, glass,
    globe, guitar, hammer, hat, helmet, jacket, jar, key, kite, knife, ladder, lamp, lantern, leaf,
    lemon, letter, magazine, magnet, map, marble, medal, mirror, mug, necklace, newspaper, notebook,
    painting, parcel, peach, pear, pen, pencil, photograph, picture, pillow, plant, plate, postcard,
    puzzle, racket, radio, ribbon, ring, rope, ruler, sandwich, scarf, shell, shovel, snack,
    souvenir, spoon, stamp, stone, suitcase, sweater, telephone, ticket, torch, towel, toy, tray,
    trumpet, vase, violin, wallet, watch, whistle
    """
)

#: What begins in one year and ends in a later one: after "the".
PERIODS: tuple[str, ...] = _lines(
    """
    alliance, apprenticeship, armistice, blockade, boycott, campaign, captivity, civil war,
    collaboration, conflict, conquest, construction, correspondence, crisis, crusade, debate,
    decline, depression, dispute, drought, dynasty, embargo, epidemic, excavation, exile, expansion,
    expedition, experiment, exploration, famine, feud, friendship, guardianship, inquiry,
    insurgency, investigation, journey, lawsuit, lease, marriage, migration, mission, mutiny,
    negotiation, occupation, outbreak, partnership, persecution, pilgrimage, plague, presidency,
    project, prosperity, protest, rebellion, reconstruction, reform, regency, reign, renovation,
    restoration, revival, revolt, revolution, rivalry, siege, struggle, study, survey, tour,
    transformation, trial, truce, uprising, voyage, war
    """
)

#: What a person may be to others, of either sex: after an adjective.
PEOPLE: tuple[str, ...] = _lines(
    """
    artist, baker, builder, chemist, child, climber, coach, colleague, cook, dancer, dentist,
    designer, doctor, driver, editor, engineer, farmer, friend, gardener, guest, guide, historian,
    judge, lawyer, leader, librarian, listener, manager, musician, neighbour, nurse, painter,
    person, photographer, pilot, player, poet, reader, runner, sailor, scientist, singer,
    skater, soldier, speaker, student, swimmer, teacher, trainer, translator, traveller, writer
    """
)

#: What a person may be like: after "a".
ADJECTIVES: tuple[str, ...] = _lines(
    """
    bold, brave, brilliant, busy, calm, careful, caring, cautious, cheerful, clever, creative,
    curious, dedicated, determined, faithful, famous, fearless, fine, friendly, funny, generous,
    gentle, gifted, good, great, happy, hopeful, humble, kind, lively, loyal, lucky, modest, nice,
    patient, pleasant, polite, popular, proud, quick, quiet, reliable, respected, serious, shy,
    sincere, skilled, strong, successful, talented, terrible, thoughtful, tireless, warm, wise,
    witty, wonderful, young
    """
)
