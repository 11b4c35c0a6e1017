"""A page in headless Chromium, and what tests ask of it. Needs selenium."""

import shutil
import time

import numpy as np
from matplotlib import image
from selenium import webdriver
from selenium.webdriver.common.by import By

from circuitjax.report.viewer.page import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--force-device-scale-factor=1 --window-size=1440,1000"
)


class Browser:
    """A page in headless Chromium, with the questions that tests ask of it."""

    def __init__(self, folder):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS.split(), f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # With the driver's path given, selenium looks for none on the network.
        service = webdriver.ChromeService(executable_path=DRIVER)
        self.driver = webdriver.Chrome(options=options, service=service)
        self.folder = folder

    def open(self, data, name="page"):
        path = self.folder / f"{name}.html"
        write_page(path, data)
        self.driver.get(path.as_uri())
        self.wait("return document.documentElement.dataset.ready === 'yes'")

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, script, seconds=20):
        end = time.monotonic() + seconds
        while not self.js(script):
            assert time.monotonic() < end, script
            time.sleep(0.03)

    def settle(self):
        """Until no transition and no frame is under way."""
        self.wait("return !viewer.moving && !viewer.pending && !viewer.zoomed.node().__transition")
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
        )

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def press(self, *keys):
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def click_mark(self, selector):
        """A real click of the mouse in the middle of a mark."""
        webdriver.ActionChains(self.driver).move_to_element(self.find(selector)).click().perform()

    def node(self, name):
        return f'[data-node="{self.js("return viewer.byId.get(arguments[0])", name)}"]'

    def pixels(self):
        """RGB `[height, width, 3]` of the window, 0 to 255."""
        path = self.folder / "screen.png"
        self.driver.save_screenshot(str(path))
        return np.rint(image.imread(path)[..., :3] * 255).astype(int)

    def panel(self):
        return self.find("#details").text

    def complaints(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]
