import io
import lzma
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from fewlabels._internal.errors import InputError
from fewlabels.data import decode
from fewlabels.data.decode import decoded


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.fixture
def gray(fmnist) -> np.ndarray:
    return fmnist.train.images[0, 0]


@pytest.fixture
def colour(gray) -> np.ndarray:
    return np.stack([gray, gray // 2, 255 - gray], axis=2)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_gray_pixels_are_as_they_were(gray, kind):
    image = decoded(saved(Image.fromarray(gray), kind))
    # GIF has palettes alone, which are colour.
    assert np.array_equal(image[0], gray)
    assert image.shape == ((3 if kind == "GIF" and len(image) == 3 else 1), 28, 28)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_colours_are_channels_first(colour, kind, options):
    assert np.array_equal(decoded(saved(Image.fromarray(colour), kind, **options)), colour.transpose(2, 0, 1))


def test_pages_are_counted_before_they_are_decoded(monkeypatch):
    small, large = (Image.new("L", (side, side)) for side in (8, 100))
    content = saved(small, "TIFF", save_all=True, append_images=[large] * 3)
    monkeypatch.setattr(decode, "LARGEST", 20_000)
    with pytest.raises(InputError, match="more than 20,000 pixels"):
        decode._pages(content)


def test_jpeg_is_near(colour):
    image = decoded(saved(Image.fromarray(colour), "JPEG", quality=100, subsampling=0))
    assert np.abs(image.astype(int) - colour.transpose(2, 0, 1)).max() <= 4


def test_what_is_transparent_is_white(gray, colour):
    alpha = np.full((28, 28, 1), 255, np.uint8)
    alpha[:14] = 0
    image = decoded(saved(Image.fromarray(np.concatenate([colour, alpha], axis=2))))
    assert (image[:, :14] == 255).all()
    assert np.array_equal(image[:, 14:], colour.transpose(2, 0, 1)[:, 14:])
    image = decoded(saved(Image.fromarray(np.stack([gray, alpha[..., 0]], axis=2), "LA")))
    assert image.shape == (1, 28, 28)
    assert (image[:, :14] == 255).all()


def test_palettes_and_print_colours_become_rgb(colour):
    few = Image.fromarray(colour).quantize(256)
    assert np.array_equal(decoded(saved(few)), np.asarray(few.convert("RGB")).transpose(2, 0, 1))
    printed = Image.fromarray(colour).convert("CMYK")
    assert decoded(saved(printed, "TIFF")).shape == (3, 28, 28)
    assert np.abs(decoded(saved(printed, "JPEG", quality=100)).astype(int) - colour.transpose(2, 0, 1)).mean() < 12


def test_a_picture_taken_sideways_is_put_upright(gray):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise to be seen
    image = decoded(saved(Image.fromarray(gray), "JPEG", quality=100, exif=exif))
    assert np.abs(image[0].astype(int) - np.rot90(gray, -1)).mean() < 2


@pytest.mark.parametrize("write", [lambda a: saved(Image.fromarray(a)), tiff])
def test_sixteen_bits_stay_sixteen_bits(gray, write):
    precise = gray.astype(np.uint16) * 257 + np.arange(28, dtype=np.uint16)
    image = decoded(write(precise))
    assert image.dtype == np.uint16
    assert np.array_equal(image[0], precise)


def test_planes_and_pages_are_channels(gray):
    five = np.stack([gray // (n + 1) for n in range(5)])
    for content in (tiff(five), tiff(five, photometric="minisblack", planarconfig="separate")):
        assert np.array_equal(decoded(content), five)
    assert np.array_equal(decoded(tiff(five.astype(np.float32) / 255)), five.astype(np.float32) / 255)


def test_pages_that_pillow_alone_can_read(gray):
    first, second = Image.fromarray(gray), Image.fromarray(255 - gray)
    content = saved(first, "TIFF", save_all=True, append_images=[second], compression="tiff_lzw")
    assert np.array_equal(decoded(content), np.stack([gray, 255 - gray]))


def test_black_and_white(gray):
    image = decoded(saved(Image.fromarray(gray > 100)))
    assert np.array_equal(image[0], (gray > 100) * 255)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"not an image at all", "not an image"),
        (saved(Image.new("L", (64, 64), 7))[:60], "a damaged image"),
        (saved(Image.effect_noise((64, 64), 50), "JPEG")[:600], "a damaged image"),
        (tiff(np.zeros((64, 64), np.uint8))[:300], "a damaged image"),
        (tiff(np.full((4, 4), np.nan, np.float32)), "not finite"),
        (tiff(np.full((4, 4), -1, np.int32)), "beyond 0..65535"),
        (tiff(np.zeros((40, 4, 4), np.uint8), photometric="minisblack"), "1 to 32 channels"),
    ],
)
def test_what_cannot_be_used_is_told(content, said):
    with pytest.raises(InputError, match=said):
        decoded(content)


@pytest.mark.parametrize("write", [lambda a: saved(Image.fromarray(a)), tiff])
def test_bombs_are_refused_before_they_are_decoded(monkeypatch, write):
    monkeypatch.setattr(decode, "LARGEST", 1000)
    with pytest.raises(InputError, match="pixels, more than 1,000"):
        decoded(write(np.zeros((64, 64), np.uint8)))


def test_an_image_in_several_files_is_not_filled_up_with_black(gray):
    """As Bio-Formats writes them: each file has one plane, and names the others."""
    planes = "".join(
        f'<TiffData IFD="0" FirstC="{c}" PlaneCount="1"><UUID FileName="{c}.ome.tif">urn:uuid:{c}</UUID></TiffData>'
        for c in range(3)
    )
    of_pixels = 'ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="28" SizeY="28" SizeC="3" SizeZ="1" SizeT="1"'
    ome = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">'
        f'<Image ID="Image:0"><Pixels {of_pixels}>{planes}</Pixels></Image></OME>'
    )
    one = tiff(gray.astype(np.uint16) * 9, description=ome, metadata=None)
    assert np.array_equal(decoded(one), gray[None].astype(np.uint16) * 9)


def test_no_program_is_run_for_an_image():
    with pytest.raises(InputError, match="not an image"):
        decoded(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


@pytest.mark.parametrize("compression", [8, 34925])
def test_a_strip_that_unpacks_to_more_than_its_pixels_is_refused(compression):
    packed = {8: zlib.compress, 34925: lzma.compress}[compression](bytes(110_000_000))
    packed += bytes(decode.UNSUSPICIOUS)  # more than a small strip
    tags = [(256, 4, 64), (257, 4, 64), (258, 3, 16), (259, 3, compression), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, 64), (279, 4, len(packed))]
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, of) for tag, kind, of in tags
    )
    content = b"II*\x00" + struct.pack("<I", 8 + len(packed)) + packed + directory + bytes(4)
    with pytest.raises(InputError, match="more pixels than it says"):
        decoded(content)


def test_packed_strips_are_unpacked(gray, monkeypatch):
    monkeypatch.setattr(decode, "UNSUSPICIOUS", 10)
    precise = gray.astype(np.uint16) * 200
    assert np.array_equal(
        decoded(saved(Image.fromarray(precise), "TIFF", compression="tiff_adobe_deflate"))[0], precise
    )


def test_one_page_of_colours_is_one_image(colour):
    assert np.array_equal(decode._pages(saved(Image.fromarray(colour), "TIFF")), colour.transpose(2, 0, 1))
