#!/usr/bin/env python3
"""Writes tests/golden/image/: small pictures of every kind and what Pillow makes of them.

    python3 tools/capture_image_golden.py [OUT_DIR]

The inputs are drawn here, without randomness from outside, so a second run writes the same files (up to the
encoders' versions). manifest.txt then says, one case a line, which tests/unit/image/test_golden.c checks:

    decode FILE WIDTH HEIGHT HASH                 exif_transpose, convert("RGB")
    resize FILE WIDTH HEIGHT FILTER HASH          the same, then resize; FILTER is Pillow's number
    patches FILE WIDTH HEIGHT FILTER PATCH MERGE TEMPORAL HASH   ... then the float32 patches of Qwen2-VL
    error FILE CODE                               Pillow refuses it; CODE is ours (enum oc_err's name)

HASH is FNV-1a with 64 bits (offset 14695981039346656037, prime 1099511628211) over the bytes of the pixels, row by
row, or of the little-endian floats.

Captured with Pillow 13.0.0. Versions differ in one thing that matters here: up to Pillow 12 a resize always takes the
width first; 13 takes the height first when it shrinks by more than twice as many pixels as the width does
(found by comparing both orders with the result over 9000 sizes). We follow 13. Debian's 9.4 agrees with all else,
including libjpeg-turbo 2.1.5 against the 3.x of the wheel.

The patch arithmetic restates transformers 5 (image_processing_pil_qwen2_vl.py, image_transforms.py: rescale,
normalize) in numpy: rescale in float64, cast to float32, then (v - mean) / std in float32.
"""
import io
import os
import struct
import sys
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

warnings.simplefilter("ignore")
OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..", "tests", "golden", "image")
FILES = {}


def fnv(data):
    h = 14695981039346656037
    for b in data:
        h = ((h ^ b) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


# ---- Drawing -------------------------------------------------------------------------------------------------------

def picture(w, h, channels=3, seed=1):
    """Slopes, an edge and some noise: compressible, yet no two neighbours alike."""
    y, x = np.mgrid[0:h, 0:w].astype(np.int64)
    out = np.zeros((h, w, channels), np.uint8)
    for c in range(channels):
        v = (x * (5 + 3 * c) + y * (7 - 2 * c) + 40 * c + ((x * x + y * seed) // 9) % 23) % 256
        v = np.where((x - w / 2) ** 2 + (y - h / 2) ** 2 < (min(w, h) / 3) ** 2, 255 - v // 2, v)
        out[:, :, c] = v
    return out


def add(name, data):
    assert name not in FILES
    FILES[name] = bytes(data)


def saved(im, fmt, **kw):
    b = io.BytesIO()
    im.save(b, fmt, **kw)
    return b.getvalue()


# ---- JPEG ----------------------------------------------------------------------------------------------------------

def make_jpeg():
    rgb = Image.fromarray(picture(61, 43))
    for name, sub in (("444", 0), ("422", 1), ("420", 2)):
        add(f"jpeg_{name}.jpg", saved(rgb, "JPEG", quality=80, subsampling=sub))
    add("jpeg_progressive.jpg", saved(rgb, "JPEG", quality=70, progressive=True))
    add("jpeg_restart.jpg", saved(rgb, "JPEG", quality=60, restart_marker_blocks=2))
    add("jpeg_rgb.jpg", saved(Image.fromarray(picture(20, 17)), "JPEG", quality=85, keep_rgb=True))
    gray = Image.fromarray(picture(33, 50)[:, :, 0])
    add("jpeg_gray.jpg", saved(gray, "JPEG", quality=75))
    add("jpeg_gray_progressive.jpg", saved(gray, "JPEG", quality=75, progressive=True))
    cmyk = Image.frombytes("CMYK", (29, 22), picture(29, 22, 4).tobytes())
    data = saved(cmyk, "JPEG", quality=85)
    add("jpeg_cmyk.jpg", data)
    at = data.index(b"Adobe")
    add("jpeg_ycck.jpg", data[:at + 11] + b"\x02" + data[at + 12:])  # the same bytes, read as YCCK
    plain = data[:at - 4] + data[at + 12:]
    add("jpeg_cmyk_no_adobe.jpg", plain)
    add("jpeg_1x1.jpg", saved(Image.fromarray(picture(1, 1)), "JPEG"))
    add("jpeg_1x40.jpg", saved(Image.fromarray(picture(1, 40)), "JPEG", quality=50))
    add("jpeg_90x1.jpg", saved(Image.fromarray(picture(90, 1)), "JPEG", quality=50, subsampling=2))
    small = Image.fromarray(picture(23, 12))
    for o in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = o
        add(f"jpeg_exif{o}.jpg", saved(small, "JPEG", quality=40, exif=exif))
    tiff = b"MM\0\x2a\0\0\0\x08" + b"\0\x01" + struct.pack(">HHLHH", 0x112, 3, 1, 6, 0) + b"\0" * 4
    add("jpeg_exif_big_endian.jpg", saved(small, "JPEG", quality=40, exif=b"Exif\0\0" + tiff))
    tiff = b"II\x2a\0\x08\0\0\0" + b"\x01\0" + struct.pack("<HHLL", 0x112, 4, 1, 8) + b"\0" * 4
    add("jpeg_exif_long.jpg", saved(small, "JPEG", quality=40, exif=b"Exif\0\0" + tiff))
    add("jpeg_exif_value9.jpg", saved(small, "JPEG", quality=40, exif=b"Exif\0\0" + tiff.replace(b"\x08\0\0\0\0\0\0\0", b"\x09\0\0\0\0\0\0\0")))
    add("jpeg_exif_broken.jpg", saved(small, "JPEG", quality=40, exif=b"Exif\0\0II\x2a\0\xff\xff\0\0"))
    add("jpeg_xmp.jpg", saved(small, "JPEG", quality=40, xmp=b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'))
    whole = FILES["jpeg_420.jpg"]
    add("jpeg_no_eoi.jpg", whole[:-2])
    add("jpeg_junk_behind.jpg", whole + b"junk behind the end")
    add("jpeg_truncated.jpg", whole[:-150])
    add("jpeg_progressive_truncated.jpg", FILES["jpeg_progressive.jpg"][:-200])
    add("jpeg_header_only.jpg", whole[:200])
    add("jpeg_no_frame.jpg", b"\xff\xd8\xff\xda\0\x02\0\0")
    sof = whole.index(b"\xff\xc0")
    add("jpeg_12bit.jpg", whole[:sof + 4] + b"\x0c" + whole[sof + 5:])
    add("jpeg_2_components.jpg", whole[:sof + 9] + b"\x02" + whole[sof + 10:])
    add("jpeg_height_0.jpg", whole[:sof + 5] + b"\0\0" + whole[sof + 7:])


# ---- PNG: our own writer, since Pillow does not write every kind -----------------------------------------------------

def chunk(kind, data):
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def pack_rows(values, depth, filter_type):
    """values: [h, w, channels] integers -> filtered scanlines."""
    h, w, ch = values.shape
    out, prior = b"", None
    bpp = max(1, ch * depth // 8)
    for y in range(h):
        if depth == 16:
            row = values[y].astype(">u2").tobytes()
        elif depth == 8:
            row = values[y].astype(np.uint8).tobytes()
        else:
            bits = "".join(f"{int(v):0{depth}b}" for v in values[y].ravel())
            bits += "0" * (-len(bits) % 8)
            row = bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))
        prior = prior or bytes(len(row))
        t = filter_type if filter_type >= 0 else y % 5
        line = bytearray()
        for i, v in enumerate(row):
            a = row[i - bpp] if i >= bpp else 0
            b, c = prior[i], prior[i - bpp] if i >= bpp else 0
            p = a + b - c
            pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
            paeth = a if pa <= pb and pa <= pc else b if pb <= pc else c
            line.append((v - (0, a, b, (a + b) // 2, paeth)[t]) & 255)
        out += bytes([t]) + bytes(line)
        prior = row
    return out


def png(values, depth, colour, interlace=False, before=b"", after=b"", filter_type=-1):
    h, w, _ = values.shape
    if interlace:
        raw = b""
        for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
            part = values[y0::dy, x0::dx]
            if part.size:
                raw += pack_rows(part, depth, filter_type)
    else:
        raw = pack_rows(values, depth, filter_type)
    ihdr = struct.pack(">LLBBBBB", w, h, depth, colour, 0, 0, int(interlace))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + before + chunk(b"IDAT", zlib.compress(raw, 9)) + after
            + chunk(b"IEND", b""))


def make_png():
    pal = chunk(b"PLTE", bytes((i * 37 + c * 11) % 256 for i in range(200) for c in range(3)))
    for interlace in (False, True):
        tag = "_interlaced" if interlace else ""
        for depth in (1, 2, 4, 8, 16):
            v = picture(21, 14, 1).astype(np.int64)
            v = v * 200 + np.arange(21)[None, :, None] * 3 if depth == 16 else v >> (8 - depth)
            if depth == 16:
                v[:, :6] //= 300  # values below 256 too, which Pillow keeps while it clips the rest
            add(f"png_gray{depth}{tag}.png", png(v, depth, 0, interlace))
        for depth in (1, 2, 4, 8):
            v = (picture(19, 11, 1).astype(np.int64) >> (8 - depth)) % 200
            add(f"png_palette{depth}{tag}.png", png(v, depth, 3, interlace, pal))
        for kind, colour, ch in (("rgb", 2, 3), ("gray_alpha", 4, 2), ("rgba", 6, 4)):
            for depth in (8, 16):
                v = picture(17, 13, ch).astype(np.int64)
                v = v * 257 + np.arange(13)[:, None, None] if depth == 16 else v
                add(f"png_{kind}{depth}{tag}.png", png(np.minimum(v, 65535), depth, colour, interlace))
    idx = picture(19, 11, 1).astype(np.int64) % 200
    add("png_palette_trns.png", png(idx, 8, 3, False, pal + chunk(b"tRNS", bytes(range(0, 200, 2)))))
    add("png_palette_trns_one.png", png(idx, 8, 3, False, pal + chunk(b"tRNS", b"\xff\xff\0")))
    add("png_palette_short.png", png(idx, 8, 3, False, chunk(b"PLTE", bytes(range(90)))))
    gray = picture(15, 9, 1).astype(np.int64)
    add("png_gray_trns.png", png(gray, 8, 0, False, chunk(b"tRNS", b"\0\x28")))
    add("png_rgb_trns.png", png(picture(15, 9).astype(np.int64), 8, 2, False, chunk(b"tRNS", b"\0\x01\0\x02\0\x03")))
    for w, h in ((1, 1), (1, 9), (9, 1), (3, 2), (5, 5)):
        add(f"png_interlaced_{w}x{h}.png", png(picture(w, h).astype(np.int64), 8, 2, True))
    tiff = b"II\x2a\0\x08\0\0\0\x01\0" + struct.pack("<HHLHH", 0x112, 3, 1, 6, 0) + b"\0" * 4
    add("png_exif.png", png(gray, 8, 0, False, chunk(b"eXIf", tiff)))
    add("png_exif_behind.png", png(gray, 8, 0, False, b"", chunk(b"eXIf", tiff)))
    profile = f"\nexif\n{len(tiff) + 6:8}\n{(b'Exif' + bytes(2) + tiff).hex()}\n".encode()
    add("png_exif_profile.png", png(gray, 8, 0, False, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))))
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>8</tiff:Orientation>"
    add("png_xmp.png", png(gray, 8, 0, False, chunk(b"iTXt", xmp)))
    add("png_gamma.png", png(gray, 8, 0, False, chunk(b"gAMA", struct.pack(">L", 100000)) + chunk(b"bKGD", b"\0\x10")))
    add("png_split_idat.png", split_idat(FILES["png_rgb8.png"]))
    whole = FILES["png_rgb8.png"]
    add("png_no_iend.png", whole[:-12])
    add("png_no_idat_crc.png", whole[:-16])
    add("png_no_idat_crc_interlaced.png", FILES["png_rgb8_interlaced.png"][:-16])
    add("png_truncated.png", whole[:-60])
    add("png_chunk_cut.png", FILES["png_exif_behind.png"][:-20])
    add("png_lying_chunk.png", whole[:33] + struct.pack(">L", 0x47000000) + b"eXIf" + whole[33:])
    add("png_bad_checksum.png", whole[:31] + b"\0\0" + whole[33:])
    add("png_header_only.png", whole[:30])
    add("png_no_idat.png", whole[:33] + whole[-12:])
    add("png_bad_filter.png", bad_filter(gray))
    add("png_bad_depth.png", whole[:16] + chunk(b"IHDR", struct.pack(">LLBBBBB", 17, 13, 3, 2, 0, 0, 0))[8:] + whole[33:])


def split_idat(data):
    at = data.index(b"IDAT") - 4
    n = struct.unpack(">L", data[at:at + 4])[0]
    body = data[at + 8:at + 8 + n]
    parts = b"".join(chunk(b"IDAT", p) for p in (body[:7], b"", body[7:50], body[50:]))
    return data[:at] + parts + data[at + 12 + n:]


def bad_filter(gray):
    raw = bytearray(pack_rows(gray, 8, 0))
    raw[0] = 9
    h, w, _ = gray.shape
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">LLBBBBB", w, h, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(raw))) + chunk(b"IEND", b""))


# ---- WebP ----------------------------------------------------------------------------------------------------------

def riff(*chunks):
    body = b"WEBP"
    for kind, data in chunks:
        body += kind + struct.pack("<L", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<L", len(body)) + body


def u24(v):
    return struct.pack("<L", v)[:3]


def make_webp():
    rgb, rgba = Image.fromarray(picture(45, 31)), Image.fromarray(picture(26, 19, 4), "RGBA")
    add("webp_lossy.webp", saved(rgb, "WEBP", quality=60))
    add("webp_lossless.webp", saved(Image.fromarray(picture(18, 13)), "WEBP", lossless=True))
    add("webp_alpha_lossy.webp", saved(rgba, "WEBP", quality=60))
    add("webp_alpha_lossless.webp", saved(rgba, "WEBP", lossless=True, exact=True))
    exif = Image.Exif()
    exif[0x0112] = 8
    add("webp_exif.webp", saved(Image.fromarray(picture(21, 10)), "WEBP", quality=50, exif=exif))
    add("webp_xmp.webp", saved(Image.fromarray(picture(21, 10)), "WEBP", quality=50, xmp=b'<a tiff:Orientation="5"/>'))
    frames = [Image.fromarray(picture(24, 16, seed=s)) for s in (1, 5)]
    add("webp_animated.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], quality=50))
    still = saved(Image.fromarray(picture(9, 7)), "WEBP", lossless=True)
    body = still[20:20 + struct.unpack("<L", still[16:20])[0]]
    sub = b"VP8L" + struct.pack("<L", len(body)) + body + b"\0" * (len(body) % 2)
    anmf = u24(2) + u24(1) + u24(8) + u24(6) + u24(100) + b"\0" + sub
    vp8x = b"\x02\0\0\0" + u24(19) + u24(14)
    add("webp_subframe.webp", riff((b"VP8X", vp8x), (b"ANIM", b"\x10\x20\x30\xff\0\0"), (b"ANMF", anmf)))
    add("webp_1x1.webp", saved(Image.fromarray(picture(1, 1)), "WEBP", lossless=True))
    add("webp_truncated.webp", FILES["webp_lossy.webp"][:-40])
    add("webp_header_only.webp", FILES["webp_lossy.webp"][:24])
    lossless = bytearray(FILES["webp_lossless.webp"])
    lossless[25:60] = b"\xff" * 35
    add("webp_broken.webp", lossless)


# ---- GIF: our own writer, with clear codes instead of a growing table ------------------------------------------------

def lzw(indices, bits):
    clear, out, acc, n = 1 << bits, bytearray(), 0, 0
    codes = []
    for i, v in enumerate(indices):
        if i % ((1 << bits) - 2) == 0:
            codes.append(clear)
        codes.append(int(v))
    for c in codes + [clear + 1]:
        acc |= c << n
        n += bits + 1
        while n >= 8:
            out.append(acc & 255)
            acc >>= 8
            n -= 8
    out.append(acc & 255)
    blocks = b"".join(bytes([len(out[i:i + 255])]) + bytes(out[i:i + 255]) for i in range(0, len(out), 255))
    return bytes([bits]) + blocks + b"\0"


def gif(screen, frame, indices, bits=4, glob=None, local=None, transparent=None, interlace=False):
    def table(p):
        return (0x80 | (bits - 1)), bytes(p)
    flags, g = table(glob) if glob is not None else (0, b"")
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, flags, 3, 0) + g
    out += b"!\xfe\x05hello\0"
    if transparent is not None:
        out += b"!\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    flags, l = table(local) if local is not None else (0, b"")
    x, y, w, h = frame
    order = list(range(h))
    if interlace:
        order = [r for a, s in ((0, 8), (4, 8), (2, 4), (1, 2)) for r in range(a, h, s)]
    data = np.asarray(indices).reshape(h, w)[order].ravel()
    return out + b"," + struct.pack("<HHHHB", x, y, w, h, flags | (0x40 if interlace else 0)) + l + lzw(data, bits) + b";"


def make_gif():
    pal = [(i * 47 + c * 83 + 20) % 256 for i in range(16) for c in range(3)]
    other = [(i * 11 + c * 29) % 256 for i in range(16) for c in range(3)]
    ramp = [i for i in range(16) for _ in range(3)]
    idx = picture(18, 13, 1).ravel() % 16
    full = (0, 0, 18, 13)
    add("gif_full.gif", gif((18, 13), full, idx, glob=pal))
    add("gif_local.gif", gif((18, 13), full, idx, glob=pal, local=other))
    add("gif_interlaced.gif", gif((18, 13), full, idx, glob=pal, interlace=True))
    add("gif_transparent.gif", gif((18, 13), full, idx, glob=pal, transparent=5))
    add("gif_partial.gif", gif((30, 20), (5, 4, 18, 13), idx, glob=pal))
    add("gif_partial_transparent.gif", gif((30, 20), (5, 4, 18, 13), idx, glob=pal, transparent=7))
    add("gif_grows.gif", gif((10, 10), (3, 2, 18, 13), idx, glob=pal))
    add("gif_no_palette.gif", gif((18, 13), full, idx))
    add("gif_gray_ramp.gif", gif((25, 13), full, idx, glob=ramp, transparent=9))
    add("gif_interlaced_small.gif", gif((18, 1), (0, 0, 18, 1), idx[:18], glob=pal, interlace=True))
    im = Image.fromarray(picture(40, 30)).quantize(64, dither=0)
    add("gif_pillow.gif", saved(im, "GIF"))
    frames = [Image.fromarray(picture(20, 15, seed=s)).quantize(16, dither=0) for s in (1, 9)]
    add("gif_animated.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50))
    whole = FILES["gif_full.gif"]
    add("gif_no_trailer.gif", whole[:-1])
    add("gif_no_terminator.gif", whole[:-2])
    add("gif_truncated.gif", whole[:-40])
    add("gif_header_only.gif", whole[:40])
    add("gif_no_frame.gif", whole[:13 + 48] + b";")
    add("gif_early_end.gif", gif((18, 14), (0, 0, 18, 14), np.zeros(18 * 14, int), glob=pal)[:-1].replace(lzw(np.zeros(18 * 14, int), 4), lzw(np.zeros(18 * 13, int), 4)) + b";")


# ---- BMP -----------------------------------------------------------------------------------------------------------

def bmp(w, h, bits, rows, header=40, compression=0, palette=b"", masks=b"", n_colours=0, offset=None):
    if header == 12:
        head = struct.pack("<LHHHH", 12, w, abs(h), 1, bits)
    else:
        head = struct.pack("<LLlHHLLLLLL", header, w, h, 1, bits, compression, len(rows), 2835, 2835, n_colours, 0)
        head += masks if header > 40 else b""
        head = (head + bytes(header))[:header] + (masks if header == 40 else b"")
    at = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<LHHL", at + len(rows), 0, 0, at if offset is None else offset) + head + palette + rows


def padded(rows):
    return b"".join(r + b"\0" * (-len(r) % 4) for r in rows)


def packed(idx, bits):
    out = []
    for row in idx:
        s = "".join(f"{int(v):0{bits}b}" for v in row)
        s += "0" * (-len(s) % 8)
        out.append(bytes(int(s[i:i + 8], 2) for i in range(0, len(s), 8)))
    return out


def rle(idx, four):
    out = b""
    for row in idx:
        x = 0
        while x < len(row):
            n = 1
            while x + n < len(row) and row[x + n] == row[x] and n < 9:
                n += 1
            if n == 1 and len(row) - x >= 4:  # an absolute run of four
                part = [int(v) for v in row[x:x + 4]]
                out += bytes([0, 4]) + (bytes([part[0] << 4 | part[1], part[2] << 4 | part[3]]) if four else bytes(part))
                x += 4
            else:
                out += bytes([n, int(row[x]) * 17 if four else int(row[x])])
                x += n
        out += b"\0\0"
    return out + b"\0\x01"


def make_bmp():
    quad = b"".join(bytes(((i * 31 + 9) % 256, (i * 77) % 256, (i * 5 + 100) % 256, 0)) for i in range(256))
    triple = b"".join(quad[4 * i:4 * i + 3] for i in range(256))
    src = picture(19, 10, 1)[:, :, 0]
    for bits in (1, 4, 8):
        idx = src >> (8 - bits)
        add(f"bmp_{bits}bit.bmp", bmp(19, 10, bits, padded(packed(idx, bits)), palette=quad[:4 << bits]))
        add(f"bmp_{bits}bit_os2.bmp", bmp(19, 10, bits, padded(packed(idx, bits)), header=12, palette=triple[:3 << bits]))
    add("bmp_8bit_gray.bmp", bmp(19, 10, 8, padded(packed(src, 8)), palette=b"".join(bytes((i, i, i, 0)) for i in range(256))))
    add("bmp_1bit_gray.bmp", bmp(19, 10, 1, padded(packed(src >> 7, 1)), palette=b"\0\0\0\0\xff\xff\xff\0"))
    add("bmp_1bit_white_first.bmp", bmp(19, 10, 1, padded(packed(src >> 7, 1)), palette=b"\xff\xff\xff\0\0\0\0\0"))
    add("bmp_8bit_few.bmp", bmp(19, 10, 8, padded(packed(src % 7, 8)), palette=quad[:28], n_colours=7))
    add("bmp_8bit_past_palette.bmp", bmp(19, 10, 8, padded(packed(src % 20, 8)), palette=quad[:28], n_colours=7))
    add("bmp_8bit_forgotten_palette.bmp", bmp(19, 10, 8, padded(packed(src, 8)), palette=quad, offset=54))
    add("bmp_offset_zero.bmp", bmp(19, 10, 24, padded([r.tobytes() for r in picture(19, 10)]), offset=0))
    rgb = picture(13, 9)
    add("bmp_24bit.bmp", bmp(13, 9, 24, padded([r.tobytes() for r in rgb])))
    add("bmp_24bit_top_down.bmp", bmp(13, -9, 24, padded([r.tobytes() for r in rgb])))
    add("bmp_24bit_os2.bmp", bmp(13, 9, 24, padded([r.tobytes() for r in rgb]), header=12))
    add("bmp_24bit_os22.bmp", bmp(13, 9, 24, padded([r.tobytes() for r in rgb]), header=64))
    add("bmp_24bit_unpadded_end.bmp", bmp(13, 9, 24, padded([r.tobytes() for r in rgb]))[:-1])
    four = [r.tobytes() for r in picture(13, 9, 4)]
    add("bmp_32bit.bmp", bmp(13, 9, 32, b"".join(four)))
    for n, masks in enumerate(((0xff0000, 0xff00, 0xff, 0), (0xff000000, 0xff0000, 0xff00, 0), (0xff000000, 0xff00, 0xff, 0),
                               (0xff000000, 0xff0000, 0xff00, 0xff), (0xff, 0xff00, 0xff0000, 0xff000000),
                               (0xff0000, 0xff00, 0xff, 0xff000000), (0xff000000, 0xff00, 0xff, 0xff0000), (0, 0, 0, 0))):
        add(f"bmp_32bit_masks{n}.bmp", bmp(13, 9, 32, b"".join(four), header=108, compression=3, masks=struct.pack("<4L", *masks)))
    add("bmp_32bit_masks_v2.bmp", bmp(13, 9, 32, b"".join(four), header=52, compression=3, masks=struct.pack("<3L", 0xff0000, 0xff00, 0xff)))
    add("bmp_32bit_masks_v1.bmp", bmp(13, 9, 32, b"".join(four), compression=3, masks=struct.pack("<3L", 0xff0000, 0xff00, 0xff)))
    add("bmp_24bit_masks.bmp", bmp(13, 9, 24, padded([r.tobytes() for r in rgb]), header=124, compression=3, masks=struct.pack("<4L", 0xff0000, 0xff00, 0xff, 0)))
    two = padded([r.tobytes()[:26] for r in picture(13, 9)])
    add("bmp_16bit.bmp", bmp(13, 9, 16, two))
    add("bmp_16bit_565.bmp", bmp(13, 9, 16, two, header=56, compression=3, masks=struct.pack("<4L", 0xf800, 0x7e0, 0x1f, 0)))
    add("bmp_16bit_555.bmp", bmp(13, 9, 16, two, header=56, compression=3, masks=struct.pack("<4L", 0x7c00, 0x3e0, 0x1f, 0)))
    flat = src // 40
    add("bmp_rle8.bmp", bmp(19, 10, 8, rle(flat, False), compression=1, palette=quad))
    add("bmp_rle4.bmp", bmp(19, 10, 4, rle(flat, True), compression=2, palette=quad[:64]))
    delta = b"\x05\x03\0\x02\x03\x01\x04\x07\0\0\0\x03\x01\x02\x03\0\0\0\x06\x09\0\0" + b"\x06\x02\0\0" * 2 + b"\0\x01"
    add("bmp_rle8_delta.bmp", bmp(6, 5, 8, delta, compression=1, palette=quad))
    add("bmp_rle8_early_end.bmp", bmp(19, 10, 8, b"\x05\x03\0\x01", compression=1, palette=quad))
    whole = FILES["bmp_24bit.bmp"]
    add("bmp_truncated.bmp", whole[:-30])
    add("bmp_header_only.bmp", whole[:40])
    add("bmp_bad_header.bmp", whole[:14] + struct.pack("<L", 41) + whole[18:])
    add("bmp_2bit.bmp", bmp(19, 10, 2, padded(packed(src >> 6, 2)), palette=quad[:16]))
    add("bmp_bad_masks.bmp", bmp(13, 9, 16, two, header=56, compression=3, masks=struct.pack("<4L", 0xf00, 0xf0, 0xf, 0)))
    add("bmp_jpeg_inside.bmp", bmp(13, 9, 24, padded([r.tobytes() for r in rgb]), compression=4))
    add("bmp_big_palette.bmp", bmp(19, 10, 8, padded(packed(src, 8)), palette=quad + quad, n_colours=512))
    add("bmp_no_pixels.bmp", bmp(0, 9, 24, b""))


# ---- Expectations ----------------------------------------------------------------------------------------------------

UNSUPPORTED = {"jpeg_12bit.jpg", "jpeg_2_components.jpg", "bmp_bad_header.bmp", "bmp_2bit.bmp", "bmp_bad_masks.bmp",
               "bmp_jpeg_inside.bmp", "bmp_big_palette.bmp"}
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]


def load(name):
    im = Image.open(io.BytesIO(FILES[name]))
    return ImageOps.exif_transpose(im).convert("RGB")


def patches(im, patch, merge, temporal):
    v = np.array(im).transpose(2, 0, 1)
    v = (v.astype(np.float64) * (1 / 255)).astype(np.float32)
    v = ((v.T - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).T
    frames = np.repeat(v[None], temporal, axis=0)
    gh, gw = im.height // patch, im.width // patch
    p = frames.reshape(1, temporal, 3, gh // merge, merge, patch, gw // merge, merge, patch)
    p = p.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return p.reshape(gh * gw, 3 * temporal * patch * patch).astype("<f4")


def decode_line(name):
    try:
        im = load(name)
    except Exception:
        return f"error {name} {'unsupported' if name in UNSUPPORTED else 'format'}"
    assert name not in UNSUPPORTED, name
    return f"decode {name} {im.width} {im.height} {fnv(im.tobytes())}"


def resize_lines():
    cases = [("jpeg_420.jpg", s) for s in ((1, 1), (56, 56), (122, 86), (61, 20), (20, 43), (200, 30), (30, 90), (60, 42), (62, 44), (37, 61))]
    cases += [("png_rgb8.png", s) for s in ((1, 50), (50, 1), (3, 3), (28, 28), (18, 6), (34, 5))]
    cases += [("jpeg_1x40.jpg", s) for s in ((1, 10), (7, 90), (3, 5))] + [("jpeg_90x1.jpg", s) for s in ((30, 1), (200, 4), (5, 3))]
    cases += [("jpeg_1x1.jpg", (9, 4)), ("webp_lossy.webp", (84, 56)), ("bmp_8bit.bmp", (40, 7)), ("jpeg_exif6.jpg", (28, 28))]
    for name, (w, h) in cases:
        for f in (1, 2, 3):
            yield f"resize {name} {w} {h} {f} {fnv(load(name).resize((w, h), f).tobytes())}"
    for name, (w, h) in cases[:8]:
        yield f"resize {name} {w} {h} 0 {fnv(load(name).resize((w, h), 0).tobytes())}"


def patch_lines():
    for name, w, h, f, p, m, t in (("jpeg_420.jpg", 56, 56, 3, 14, 2, 2), ("jpeg_exif5.jpg", 28, 84, 3, 14, 2, 2), ("png_rgba8.png", 112, 28, 2, 14, 2, 2),
                                   ("gif_full.gif", 32, 64, 1, 16, 2, 2), ("bmp_24bit.bmp", 24, 12, 3, 4, 3, 1), ("webp_lossless.webp", 20, 30, 3, 5, 1, 3)):
        yield f"patches {name} {w} {h} {f} {p} {m} {t} {fnv(patches(load(name).resize((w, h), f), p, m, t).tobytes())}"


def main():
    for make in (make_jpeg, make_png, make_webp, make_gif, make_bmp):
        make()
    os.makedirs(OUT, exist_ok=True)
    lines = [f"# Pillow {Image.__version__}; written by tools/capture_image_golden.py"]
    lines += [decode_line(n) for n in sorted(FILES)] + list(resize_lines()) + list(patch_lines())
    for name, data in FILES.items():
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(data)
    with open(os.path.join(OUT, "manifest.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")
    print(f"{len(FILES)} files, {sum(map(len, FILES.values()))} bytes, {len(lines) - 1} cases")


main()
