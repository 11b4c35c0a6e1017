"""Words that programs are made of, shared by the tasks and by the texts that a model learns from.

Every word is letters only and common, so that a byte-level tokenizer of a few thousand tokens makes
it one token, with a space before it and without. All are lower case but those of `CLASSES`.
"""

__all__ = [
    "ATTRIBUTES",
    "CLASSES",
    "COLLECTIONS",
    "COMMON",
    "FLAGS",
    "FUNCTIONS",
    "LETTERS",
    "MODULES",
    "NAMES",
    "STRINGS",
]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: Common names of local variables, singular.
NAMES: tuple[str, ...] = _words(
    """
    value count item name data result index total path text node left right key user file line
    word size width height depth length offset start end first last head tail row column cell
    table field record entry state status code flag mode kind level score price amount cost rate
    tax balance limit step speed time date day month year hour minute point vector matrix shape
    color image pixel frame scene camera layer model weight bias loss graph edge tree root child
    parent leaf branch stack queue cache buffer stream source target input output message body
    title label tag note page link url host port server client request response session token
    password email address phone city country region order product store customer account
    invoice event task job worker thread process command option argument parameter config
    setting version release package module script test case error warning reason answer question
    query filter pattern match group rule part block chunk batch sample mean best temp base
    factor ratio distance angle radius area volume mass current previous number letter char
    string digit bit mask signal channel filename folder directory prefix suffix counter handler
    callback context content document database schema driver team player game
    """
)

#: Common names of functions and methods: verbs.
FUNCTIONS: tuple[str, ...] = _words(
    """
    load parse get run build make create update delete remove insert find search sort merge
    split join read write open close send receive fetch save store print format convert encode
    decode compute calculate process handle check validate verify test compare match filter
    select apply call start stop wait reset clear copy move push pop add subtract multiply
    divide scale shift rotate draw render show hide display plot log report count sum reduce
    collect gather scatter group index register install connect bind attach detach lock release
    acquire submit cancel retry commit export extract download upload replace rename swap
    reverse shuffle sample train fit predict evaluate transform normalize resize crop dump scan
    visit walk resolve expand flatten wrap setup configure init emit notify clean prepare
    measure
    """
)

#: Names of classes: one capitalised word each.
CLASSES: tuple[str, ...] = _words(
    """
    Node Tree Graph Queue Stack Cache Buffer Stream Reader Writer Parser Loader Builder Manager
    Handler Worker Client Server Request Response Session Message Event Task Job Model Layer
    Network User Account Customer Order Product Store Item Record Table Field Column Point
    Vector Matrix Shape Circle Image Player Game Team Window Button Widget Config Context Error
    Result Token Logger Filter Counter Timer Monitor Engine Driver Plugin Document Page Report
    """
)

#: Names of attributes of an object.
ATTRIBUTES: tuple[str, ...] = _words(
    """
    name value count size width height length index key data items path text title label kind
    mode state status level score price amount balance limit rate start end first last left
    right parent children root head tail prev color weight bias owner user host port url token
    email address client server session config options params source target output input buffer
    cache queue lock thread timeout delay version date time total result error message body
    content shape rows columns depth offset position speed parser model driver logger handler
    table schema batch step factor
    """
)

#: Words of which the contents of strings are made.
STRINGS: tuple[str, ...] = _words(
    """
    hello world user name file not found error value invalid missing empty done ready start stop
    open closed read write load save data input output result total count size left right first
    last next new old good bad high low red green blue black white small large big fast slow hot
    cold north south east west yes no true false one two three four five six seven eight nine
    ten apple orange lemon cherry grape melon bread water milk coffee sugar salt paper book pen
    desk chair table door window house room garden street road bridge river lake sea mountain
    forest tree flower grass animal dog cat horse bird fish mouse car train plane boat bike
    wheel engine city town village country region market store price order item number code key
    lock box bag cup plate glass knife hand foot head eye ear face voice song music dance game
    team player score level point time day night week month year morning evening summer winter
    spring sun moon star sky cloud rain snow wind storm light dark color shape line circle
    square message email phone address page link image text word letter title note list report
    failed started finished waiting running loading saved server client host port connection
    timeout request response status unknown default warning cannot please check again could
    should must the and for with from into after before
    """
)

#: Common names of collections: plurals.
COLLECTIONS: tuple[str, ...] = _words(
    """
    values items names data files lines words users rows columns cells records entries keys
    points nodes edges children parts blocks chunks batches samples scores prices orders
    products numbers letters tokens messages events tasks jobs workers threads results errors
    options parameters rules groups pages links images frames layers weights paths tables fields
    requests responses sessions players teams days
    """
)

#: Names of variables that hold a truth value.
FLAGS: tuple[str, ...] = _words(
    """
    flag done ready found valid active enabled visible open closed empty dirty verbose debug
    force strict finished running changed stopped failed loaded cached locked selected hidden
    success matched started silent
    """
)

#: Names of modules.
MODULES: tuple[str, ...] = _words(
    """
    json math random logging socket string copy time types queue shutil struct pickle threading
    typing collections itertools functools inspect
    """
)

#: One-letter names.
LETTERS: tuple[str, ...] = _words(
    """
    a b c d e g h i j k m n p q r s t u v w x y z
    """
)

#: The commonest names, each surely one token: for answers that must be one token.
COMMON: tuple[str, ...] = _words(
    """
    value count item name data result index total path text node left right key user file line
    word size width height start end first last state mode level score price limit step time
    point model source target message body title host port client server request response token
    job task config version error query filter group block batch sample number string buffer
    cache queue code image
    """
)
