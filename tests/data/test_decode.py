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
from fewlabels.data.decode import decode_image


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
def test_decode_image_keeps_gray_pixels(gray, kind):
    image = decode_image(saved(Image.fromarray(gray), kind))
    # GIF images always have a palette, which may be decoded as colour.
    assert np.array_equal(image[0], gray)
    assert image.shape == ((3 if kind == "GIF" and len(image) == 3 else 1), 28, 28)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_decode_image_returns_colour_channels_first(colour, kind, options):
    assert np.array_equal(decode_image(saved(Image.fromarray(colour), kind, **options)), colour.transpose(2, 0, 1))


def test_read_pages_refuses_too_many_pixels_before_decoding(monkeypatch):
    small, large = (Image.new("L", (side, side)) for side in (8, 100))
    content = saved(small, "TIFF", save_all=True, append_images=[large] * 3)
    monkeypatch.setattr(decode, "MAX_PIXELS", 20_000)
    with pytest.raises(InputError, match="more than 20,000 pixels"):
        decode._read_pages(content)


def test_decode_image_jpeg_is_close_to_the_original(colour):
    image = decode_image(saved(Image.fromarray(colour), "JPEG", quality=100, subsampling=0))
    assert np.abs(image.astype(int) - colour.transpose(2, 0, 1)).max() <= 4


def test_decode_image_makes_transparent_pixels_white(gray, colour):
    alpha = np.full((28, 28, 1), 255, np.uint8)
    alpha[:14] = 0
    image = decode_image(saved(Image.fromarray(np.concatenate([colour, alpha], axis=2))))
    assert (image[:, :14] == 255).all()
    assert np.array_equal(image[:, 14:], colour.transpose(2, 0, 1)[:, 14:])
    image = decode_image(saved(Image.fromarray(np.stack([gray, alpha[..., 0]], axis=2), "LA")))
    assert image.shape == (1, 28, 28)
    assert (image[:, :14] == 255).all()


def test_decode_image_converts_palettes_and_cmyk_to_rgb(colour):
    few = Image.fromarray(colour).quantize(256)
    assert np.array_equal(decode_image(saved(few)), np.asarray(few.convert("RGB")).transpose(2, 0, 1))
    printed = Image.fromarray(colour).convert("CMYK")
    assert decode_image(saved(printed, "TIFF")).shape == (3, 28, 28)
    assert np.abs(decode_image(saved(printed, "JPEG", quality=100)).astype(int) - colour.transpose(2, 0, 1)).mean() < 12


def test_decode_image_applies_exif_orientation(gray):
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer must rotate it clockwise
    image = decode_image(saved(Image.fromarray(gray), "JPEG", quality=100, exif=exif))
    assert np.abs(image[0].astype(int) - np.rot90(gray, -1)).mean() < 2


@pytest.mark.parametrize("write", [lambda a: saved(Image.fromarray(a)), tiff])
def test_decode_image_keeps_sixteen_bits(gray, write):
    precise = gray.astype(np.uint16) * 257 + np.arange(28, dtype=np.uint16)
    image = decode_image(write(precise))
    assert image.dtype == np.uint16
    assert np.array_equal(image[0], precise)


def test_decode_image_returns_tiff_planes_as_channels(gray):
    five = np.stack([gray // (n + 1) for n in range(5)])
    for content in (tiff(five), tiff(five, photometric="minisblack", planarconfig="separate")):
        assert np.array_equal(decode_image(content), five)
    assert np.array_equal(decode_image(tiff(five.astype(np.float32) / 255)), five.astype(np.float32) / 255)


def test_decode_image_reads_tiff_compressions_that_only_pillow_supports(gray):
    first, second = Image.fromarray(gray), Image.fromarray(255 - gray)
    content = saved(first, "TIFF", save_all=True, append_images=[second], compression="tiff_lzw")
    assert np.array_equal(decode_image(content), np.stack([gray, 255 - gray]))


def test_decode_image_scales_one_bit_pixels_to_0_and_255(gray):
    image = decode_image(saved(Image.fromarray(gray > 100)))
    assert np.array_equal(image[0], (gray > 100) * 255)


@pytest.mark.parametrize(
    ("content", "message"),
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
def test_decode_image_refuses_unusable_files_with_the_reason(content, message):
    with pytest.raises(InputError, match=message):
        decode_image(content)


@pytest.mark.parametrize("write", [lambda a: saved(Image.fromarray(a)), tiff])
def test_decode_image_refuses_images_above_max_pixels(monkeypatch, write):
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match="pixels, more than 1,000"):
        decode_image(write(np.zeros((64, 64), np.uint8)))


def test_decode_image_reads_only_its_own_plane_of_a_multi_file_ome_tiff(gray):
    """Bio-Formats writes such files: each has one plane and the names of the others."""
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
    assert np.array_equal(decode_image(one), gray[None].astype(np.uint16) * 9)


def test_decode_image_refuses_formats_that_run_programs():
    with pytest.raises(InputError, match="not an image"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


@pytest.mark.parametrize("compression", [8, 34925])
def test_decode_image_refuses_a_tiff_strip_that_expands_beyond_its_pixels(compression):
    packed = {8: zlib.compress, 34925: lzma.compress}[compression](bytes(110_000_000))
    packed += bytes(decode.MAX_UNCHECKED_BYTES)  # longer than the strips that are not tested
    tags = [(256, 4, 64), (257, 4, 64), (258, 3, 16), (259, 3, compression), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, 64), (279, 4, len(packed))]
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, of) for tag, kind, of in tags
    )
    content = b"II*\x00" + struct.pack("<I", 8 + len(packed)) + packed + directory + bytes(4)
    with pytest.raises(InputError, match="more pixels than its header says"):
        decode_image(content)


def test_decode_image_reads_compressed_tiff_strips(gray, monkeypatch):
    monkeypatch.setattr(decode, "MAX_UNCHECKED_BYTES", 10)
    precise = gray.astype(np.uint16) * 200
    assert np.array_equal(
        decode_image(saved(Image.fromarray(precise), "TIFF", compression="tiff_adobe_deflate"))[0], precise
    )


def test_read_pages_returns_one_colour_page_as_one_image(colour):
    assert np.array_equal(decode._read_pages(saved(Image.fromarray(colour), "TIFF")), colour.transpose(2, 0, 1))
