"""Images: chosen, dropped, pasted, photographed; several, removed, made smaller, refused."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from tests.runtime.server.page.actions import (
    QUESTION,
    add_images,
    ask,
    picture,
    set_fields,
    upload,
)

pytestmark = pytest.mark.chat

# The orientation 6 of EXIF: the camera was turned, and the image is shown turned to the right.
_TURNED = Image.Exif()
_TURNED[0x0112] = 6

_GIVE = """
([bytes, event]) => {
  const transfer = new DataTransfer();
  const data = Uint8Array.from(atob(bytes), (each) => each.charCodeAt(0));
  transfer.items.add(new File([data], "given.png", { type: "image/png" }));
  const init = { bubbles: true, cancelable: true };
  const made = event === "paste"
    ? new ClipboardEvent("paste", { ...init, clipboardData: transfer })
    : new DragEvent(event, { ...init, dataTransfer: transfer });
  return !document.getElementById("question").dispatchEvent(made);
}
"""


def bodies_of(page: Any) -> list[dict[str, Any]]:
    """The requests that are sent from now on."""
    bodies: list[dict[str, Any]] = []
    page.on("request", lambda request: request.post_data and bodies.append(request.post_data_json))
    return bodies


def images_of(body: dict[str, Any]) -> list[Image.Image]:
    found = []
    for message in body["messages"]:
        parts = message["content"] if isinstance(message["content"], list) else []
        for part in parts:
            if part["type"] == "image_url":
                data = part["image_url"]["url"].partition(",")[2]
                found.append(Image.open(io.BytesIO(base64.b64decode(data))))
    return found


def test_several_images_are_chosen_removed_and_sent(page: Any) -> None:
    set_fields(page, max_tokens="5")
    bodies = bodies_of(page)
    add_images(page, *(upload(f"{side}.png", picture(side, 40)) for side in (50, 60, 70)))
    page.get_by_role("button", name="Remove 60.png").click()
    assert page.locator("#previews li").count() == 2
    assert page.is_disabled("#send")
    ask(page)
    assert [image.size for image in images_of(bodies[0])] == [(50, 40), (70, 40)]
    assert bodies[0]["messages"][0]["content"][-1] == {"type": "text", "text": QUESTION}
    shown = page.locator(".question .images img")
    assert shown.count() == 2 and page.locator("#previews li").count() == 0
    page.wait_for_selector(".question img[src^='blob:']")
    # The next question sends them again, and the server finds them in its cache.
    ask(page, "And that?")
    assert len(images_of(bodies[1])) == 2
    assert " 0 of" not in page.locator(".answer .stats").nth(1).inner_text()


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_an_image_is_pasted_or_dropped(page: Any, event: str) -> None:
    data = base64.b64encode(picture()).decode()
    if event == "drop":
        assert page.evaluate(_GIVE, [data, "dragover"])
        assert page.is_visible(".drop-hint")
    assert page.evaluate(_GIVE, [data, event])
    page.locator("#previews li").wait_for()
    assert page.is_hidden(".drop-hint")
    assert page.get_by_role("img", name="given.png: 60 \u00d7 40").is_visible()


def test_an_image_is_photographed(page: Any, screen: str) -> None:
    button = page.get_by_role("button", name="Take a photo").first
    assert button.is_visible() == (screen == "phone")
    camera = page.locator("#camera-input")
    assert camera.get_attribute("capture") == "environment"
    if screen == "phone":
        with page.expect_file_chooser() as chooser:
            button.click()
        assert not chooser.value.is_multiple()
    camera.set_input_files([upload("photo.jpg", picture(kind="JPEG"), "image/jpeg")])
    page.locator("#previews li").wait_for()


def test_choosing_opens_the_file_dialog(page: Any) -> None:
    for name in ("Choose images", "Add images"):
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name=name).click()
        assert chooser.value.is_multiple()


def test_a_large_image_is_made_smaller(page: Any) -> None:
    bodies = bodies_of(page)
    set_fields(page, max_tokens="2")
    add_images(page, upload("wide.png", picture(4096, 512)))
    name = "wide.png: 4096 \u00d7 512, sent as 2048 \u00d7 256"
    assert page.get_by_role("img", name=name).is_visible()
    ask(page)
    (image,) = images_of(bodies[0])
    assert image.size == (2048, 256) and image.format == "PNG"


@pytest.mark.parametrize("width", [300, 3000])
def test_a_photo_stays_upright(page: Any, width: int) -> None:
    """Small ones are sent with their orientation, and smaller made ones are turned."""
    bodies = bodies_of(page)
    set_fields(page, max_tokens="2")
    file = io.BytesIO()
    photo = Image.new("RGB", (width, 200), "blue")
    photo.paste("red", (0, 0, width // 2, 200))
    photo.save(file, "JPEG", exif=_TURNED)
    add_images(page, upload("photo.jpg", file.getvalue(), "image/jpeg"))
    natural = page.locator("#previews img").evaluate("(i) => [i.naturalWidth, i.naturalHeight]")
    assert natural[0] < natural[1] <= 2048
    ask(page)
    (image,) = images_of(bodies[0])
    turned = Image.open(file) and _upright(image)
    assert turned.size == tuple(natural)
    red, blue = turned.getpixel((natural[0] // 2, 20)), turned.getpixel((natural[0] // 2, -20))
    assert red[0] > 200 > 60 > red[2] and blue[2] > 200 > 60 > blue[0]


def _upright(image: Image.Image) -> Any:
    if image.getexif().get(0x0112) == 6:
        return image.transpose(Image.Transpose.ROTATE_270).convert("RGB")
    return image.convert("RGB")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP"])
def test_other_formats(page: Any, kind: str) -> None:
    bodies = bodies_of(page)
    set_fields(page, max_tokens="2")
    add_images(page, upload("image", picture(kind=kind), f"image/{kind.lower()}"))
    ask(page)
    (image,) = images_of(bodies[0])
    assert image.size == (60, 40) and image.format == ("WEBP" if kind == "WEBP" else "PNG")


@pytest.mark.parametrize(
    ("name", "kind", "data", "message"),
    [
        ("photo.heic", "image/heic", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC photo"),
        ("scan.tif", "image/tiff", b"II*\0" + bytes(40), "TIFF file"),
        ("broken.png", "image/png", picture()[:100], "broken.png is damaged"),
        ("notes.txt", "text/plain", b"hello", "notes.txt is not an image"),
        ("empty.png", "image/png", b"", "empty.png is empty"),
    ],
)
def test_a_file_that_is_no_image(
    page: Any, name: str, kind: str, data: bytes, message: str
) -> None:
    page.set_input_files("#file-input", [upload(name, data, kind), upload("good.png", picture())])
    page.wait_for_selector("#composer-note:not([hidden])")
    assert message in page.inner_text("#composer-note")
    # The others are there.
    assert page.locator("#previews li").count() == 1


def test_more_images_than_a_question_may_have(page: Any) -> None:
    files = [upload(f"{number}.png", picture(20, 20)) for number in range(18)]
    page.set_input_files("#file-input", files)
    page.wait_for_selector("#composer-note:not([hidden])")
    assert page.inner_text("#composer-note") == "A question may have 16 images."
    assert page.locator("#previews li").count() == 16


def test_an_image_without_a_question(page: Any) -> None:
    add_images(page, upload("a.png", picture()))
    page.press("#question", "Enter")
    assert page.inner_text("#composer-note") == "Write a question about the image."
    assert page.get_attribute("#question", "placeholder") == "Ask about the image"


def test_editing_keeps_or_changes_the_images(page: Any) -> None:
    bodies = bodies_of(page)
    set_fields(page, max_tokens="2")
    add_images(page, upload("a.png", picture(50, 50)), upload("b.png", picture(60, 50)))
    ask(page)
    page.get_by_role("button", name="Edit and ask again").click()
    page.get_by_role("button", name="Remove a.png").click()
    ask(page, "And now?")
    assert [image.size for image in images_of(bodies[1])] == [(60, 50)]
    assert page.locator(".question .images img").count() == 1
