"""The README's picture: an explanation of the sample documents by the embedded model, opened in headless Chromium.

make picture
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from playwright.sync_api import sync_playwright

from qr_core import QRScorer
from qr_core.files.inputs import documents_from_json_lines

QUESTION = "What does the amber light on the router mean?"
PICTURE = Path(__file__).parent / "images" / "explanation.png"


def main() -> int:
    """Write the picture."""
    browser_path = next(path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path)
    text = files("qr_core.demo").joinpath("articles.jsonl").read_text("utf-8")
    documents = documents_from_json_lines(text, "articles.jsonl")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page_file = Path(folder) / "why.html"
        QRScorer.from_pretrained(device="cpu").explain(QUESTION, documents, top_k=3).save_html(page_file)
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 960, "height": 640})
        page.goto(page_file.as_uri())
        page.locator("article p .w", has_text="Amber").first.hover()
        page.screenshot(path=str(PICTURE))
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
