"""Whatever the bytes are, `decode` gives upright RGB pixels or an ImageError that says what to do."""

import io
import itertools
import struct
import sys
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from labelmill.errors import ImageError, TooLargeError, UnreadableError, UnsupportedError
from labelmill.images.decode import MAX_PIXELS, decode, sniff
from pictures import encoded, exif_bytes, jpeg_bytes, png_bytes, scene

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
EXACT = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}}


def far(pixels, expected) -> float:
    assert pixels.shape == np.asarray(expected).shape
    return float(np.abs(pixels.astype(int) - expected).mean())


def png_header(width: int, height: int) -> bytes:
    """A PNG of any size in a few bytes; its pixels would have to be decoded to find out that they are missing."""
    return png(width, height, bits=8, color_type=2, rows=bytes(4096))


def png(width: int, height: int, *, bits: int, color_type: int, rows: bytes) -> bytes:
    """A PNG with any header, from the scanlines as they are stored."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    pixels = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_on_the_list_is_decoded_by_content(name):
    data = encoded(scene(50, 36), name)
    picture = decode(data)
    assert sniff(data) == name.lower()
    assert (picture.width_px, picture.height_px) == (50, 36)
    assert picture.pixels_hwc.dtype == np.uint8
    assert picture.pixels_hwc.flags.c_contiguous
    assert far(picture.pixels_hwc, scene(50, 36)) < 8


@pytest.mark.parametrize("name", EXACT)
def test_lossless_formats_give_their_very_pixels(name):
    assert np.array_equal(decode(encoded(scene(50, 36), name, **EXACT[name])).pixels_hwc, scene(50, 36))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_through_turbo_equals_pillow(progressive, subsampling):
    data = jpeg_bytes(67, 45, progressive=progressive, subsampling=subsampling)
    assert far(decode(data).pixels_hwc, np.asarray(Image.open(io.BytesIO(data)))) < 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("AVIF", {"quality": 95}),
    ],
)
def test_every_orientation_comes_out_upright(name, options, orientation):
    upright = scene(40, 24)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(encoded(stored, name, exif=exif.tobytes() if name != "TIFF" else exif, **options))
    assert (picture.width_px, picture.height_px) == (40, 24)
    assert far(picture.pixels_hwc, upright) < 3


def test_orientation_is_read_in_both_byte_orders():
    for order in "<>":
        picture = decode(encoded(scene(40, 24), "JPEG", exif=exif_bytes(6, order=order)))
        assert (picture.width_px, picture.height_px) == (24, 40)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", exif_bytes(9), exif_bytes(6)[:-9]])
def test_damaged_exif_does_not_cost_the_picture(exif):
    picture = decode(encoded(scene(40, 24), "JPEG", exif=exif))
    assert (picture.width_px, picture.height_px) == (40, 24)


def test_gray_jpeg_becomes_rgb():
    pixels = decode(encoded(Image.new("L", (20, 10), 77), "JPEG")).pixels_hwc
    assert pixels.shape == (10, 20, 3)
    assert far(pixels, np.full((10, 20, 3), 77)) < 1


def test_cmyk_jpeg_is_not_inverted():
    pixels = decode(encoded(Image.new("RGB", (20, 10), (200, 40, 30)).convert("CMYK"), "JPEG", quality=95)).pixels_hwc
    assert far(pixels, np.full((10, 20, 3), (200, 40, 30))) < 4


def test_ycck_jpeg_is_not_inverted():
    inverted = Image.new("RGB", (16, 16), (200, 40, 30)).convert("CMYK")
    data = bytearray(encoded(inverted, "JPEG", quality=95))
    adobe = data.index(b"Adobe")
    data[adobe + 11] = 2  # the transform: now the first three channels are to be read as YCC
    pixels = decode(bytes(data)).pixels_hwc
    reference = Image.open(io.BytesIO(bytes(data))).convert("RGB")
    assert far(pixels, np.asarray(reference)) < 1
    assert far(pixels, np.full((16, 16, 3), (200, 40, 30))) > 20  # so the transform was applied


def test_palette_and_bilevel_pictures_become_rgb():
    palette = Image.new("RGB", (20, 10), (10, 200, 30)).quantize(4)
    assert far(decode(encoded(palette, "PNG")).pixels_hwc, np.full((10, 20, 3), (10, 200, 30))) < 2
    assert decode(encoded(Image.new("1", (20, 10), 1), "PNG")).pixels_hwc.min() == 255


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode):
    drawn = Image.new(mode, (20, 10), (0,) * (len(mode) - 1) + (0,))
    drawn.paste((0,) * (len(mode) - 1) + (128,), (0, 0, 10, 10))
    pixels = decode(encoded(drawn, "PNG")).pixels_hwc
    assert pixels[5, 15].tolist() == [255, 255, 255]
    assert pixels[5, 5].tolist() == [127, 127, 127]


def test_transparent_palette_entries_are_white():
    palette = Image.new("P", (20, 10), 0)
    palette.putpalette([1, 2, 3, 200, 100, 50])
    palette.paste(1, (0, 0, 10, 10))
    for name in ("PNG", "GIF"):
        pixels = decode(encoded(palette, name, transparency=0)).pixels_hwc
        assert pixels[5, 15].tolist() == [255, 255, 255]
        assert pixels[5, 5].tolist() == [200, 100, 50]


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(name):
    levels = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(1, 256).repeat(4, axis=0)
    pixels = decode(encoded(Image.fromarray(levels), name)).pixels_hwc
    assert pixels[0, :, 0].tolist() == list(range(256))


def test_floating_point_tiff_is_unsupported_and_says_what_to_do():
    with pytest.raises(UnsupportedError, match="8 or 16 bits"):
        decode(encoded(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (6, 4)])
def test_sixteen_bits_a_channel_are_scaled_in_colour_too(color_type, channels):
    levels = np.full((4, 6, channels), 65535, dtype=">u2")
    levels[..., :3] = (0x1234, 0x80FF, 0xFEDC)
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    pixels = decode(png(6, 4, bits=16, color_type=color_type, rows=rows)).pixels_hwc
    assert far(pixels, np.full((4, 6, 3), (0x12, 0x80, 0xFE))) <= 1


def test_heic_is_decoded_upright_and_within_the_limit():
    pillow_heif = pytest.importorskip("pillow_heif", reason="pip install 'labelmill[heic]'")
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(scene(64, 48), 1)))
    buffer = io.BytesIO()
    pillow_heif.from_pillow(stored).save(buffer, quality=95, exif=exif_bytes(6))
    data = buffer.getvalue()
    picture = decode(data)
    assert (picture.width_px, picture.height_px) == (64, 48)
    assert far(picture.pixels_hwc, scene(64, 48)) < 6
    with pytest.raises(TooLargeError):
        decode(data, max_pixels=64 * 48 - 1)
    with pytest.raises(UnreadableError):
        decode(data[: len(data) // 2])


def test_heic_without_its_extra_says_how_to_get_it(monkeypatch):
    for name in ("pillow_heif", "pillow_heif.as_plugin"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnsupportedError, match=r"HEIC needs pillow-heif.*pip install 'labelmill\[heic\]'"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    for name, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = encoded(frames[0], name, save_all=True, append_images=frames[1:], **options)
        assert decode(data).pixels_hwc[8, 8].tolist() == [255, 0, 0]


def test_min_side_gives_a_smaller_version_that_still_covers_it():
    data = jpeg_bytes(401, 301)
    picture = decode(data, min_side_px=70)
    assert picture.pixels_hwc.shape == (76, 101, 3)
    assert (picture.width_px, picture.height_px) == (401, 301)
    assert decode(data, min_side_px=400).pixels_hwc.shape == (301, 401, 3)
    assert decode(png_bytes(400, 300), min_side_px=30).pixels_hwc.shape == (60, 80, 3)


def test_a_bomb_is_refused_from_its_header():
    data = png_header(40_000, 40_000)
    assert len(data) < 5_000
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(TooLargeError, match=r"40000 x 40000.*limit of 200,000,000.*make it smaller"):
        decode(data)
    assert time.perf_counter() - start < 0.5
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("name", FORMATS)
def test_the_limit_counts_for_every_format(name):
    data = encoded(scene(50, 36), name)
    assert decode(data, max_pixels=1800).width_px == 50
    with pytest.raises(TooLargeError):
        decode(data, max_pixels=1799)


def test_our_limit_decides_not_the_global_one_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("PNG", "BMP", "GIF", "AVIF", "JPEG"):
        assert decode(encoded(scene(50, 36), name)).width_px == 50
    for name in ("TIFF", "WEBP"):
        with pytest.raises(TooLargeError, match="200 pixels at most, which is Pillow's limit"):
            decode(encoded(scene(50, 36), name))
    assert Image.MAX_IMAGE_PIXELS == 100
    assert MAX_PIXELS == 200_000_000


def test_a_jpeg_with_thousands_of_scans_is_refused():
    data = jpeg_bytes(64, 64, progressive=True)
    scan = data.rindex(b"\xff\xda")
    with pytest.raises(UnreadableError, match="500 scans"):
        decode(data[:-2] + data[scan:-2] * 600 + data[-2:])


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_jpeg_cut_in_the_middle_is_unreadable(progressive, mode):
    whole = encoded(Image.fromarray(scene(300, 200)).convert(mode), "JPEG", progressive=progressive)
    for part in (0.5, 0.9):
        with pytest.raises(UnreadableError):
            decode(whole[: int(len(whole) * part)])
        with pytest.raises(UnreadableError):
            decode(whole[: int(len(whole) * part)], min_side_px=50)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_jpeg_without_its_end_marker_or_with_trailing_garbage_is_whole(mode):
    whole = encoded(Image.fromarray(scene(300, 200)).convert(mode), "JPEG")
    expected = decode(whole).pixels_hwc
    for data in (whole[:-1], whole[:-2], whole + b"garbage" * 9, whole + bytes(100), whole + whole):
        assert np.array_equal(decode(data).pixels_hwc, expected)


def test_padding_before_the_end_marker_is_harmless():
    whole = jpeg_bytes(300, 200)
    padded = whole[:-2] + bytes(12) + whole[-2:]
    assert far(decode(padded).pixels_hwc, decode(whole).pixels_hwc) < 0.5


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_unreadable(name):
    data = encoded(scene(200, 150), name)
    with pytest.raises(UnreadableError):
        decode(data[: len(data) // 2])


def test_an_empty_file_says_so():
    with pytest.raises(UnreadableError, match=r"^the file is empty$"):
        decode(b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\n<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"%PDF-1.7", "a PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"BMW is a maker of cars, not a picture", "begins with the bytes 42 4d 57"),
        (b"\0", "begins with the bytes 00"),
    ],
)
def test_what_is_no_picture_is_unsupported_and_named(data, words):
    with pytest.raises(UnsupportedError, match=words):
        decode(data)


def test_formats_off_the_list_are_never_handed_to_pillow(monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("another reader was tried"))
    for name in ("PPM", "TGA", "ICO", "EPS", "PCX", "JPEG2000"):
        with pytest.raises(UnsupportedError):
            decode(encoded(scene(16, 16), name))


@pytest.mark.parametrize("name", FORMATS)
def test_no_damage_lets_another_exception_out(name, capfd, recwarn):
    options = {"exif": exif_bytes(6)} if name in ("JPEG", "PNG", "WEBP") else {}
    whole = encoded(scene(33, 21), name, **options)
    rng = np.random.default_rng(FORMATS.index(name))
    decoded = 0
    for index in range(150):
        data = bytearray(whole)
        for _ in range(1 + index % 5):
            data[rng.integers(len(data) if index % 2 else min(len(data), 120))] = rng.integers(256)
        if index % 7 == 0:
            del data[rng.integers(len(data)) :]
        decoded += _is_pixels_or_image_error(bytes(data))
    assert 0 < decoded < 150
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_no_odd_mode_lets_another_exception_out():
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16")
    saved = 0
    for mode, name in itertools.product(modes, FORMATS):
        try:
            data = encoded(Image.new(mode, (9, 7)), name)
        except (OSError, ValueError, KeyError):  # the format has no such pictures
            continue
        saved += 1
        _is_pixels_or_image_error(data)
    assert saved > 25


def _is_pixels_or_image_error(data: bytes) -> bool:
    try:
        picture = decode(data, max_pixels=1_000_000)
    except ImageError as exc:
        text = str(exc)
        assert text
        assert "\n" not in text
        assert "0x" not in text
        assert "object at" not in text
        return False
    assert picture.pixels_hwc.shape[2] == 3
    assert picture.pixels_hwc.dtype == np.uint8
    return True
