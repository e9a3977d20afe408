"""The text of `example.cpp`, for `string.Template`."""

from __future__ import annotations

from typing import Final

__all__ = ["ARRAYS", "COLOR", "FITS", "GRAY", "LABELS", "PICTURE", "READ", "SEVERAL", "SWAP"]

_LOAD: Final = """
static int load(ncnn::Net& net)
{
    // As the bundle was verified. Without these lines ncnn may compute with halves, which is faster
    // and a little less exact.
    net.opt.use_fp16_packed = false;
    net.opt.use_fp16_storage = false;
    net.opt.use_fp16_arithmetic = false;
${options}    if (net.load_param("model.param") == 0 && net.load_model("model.bin") == 0)
        return 0;
    fprintf(stderr, "the model does not load; run this in its folder\\n");
    return 1;
}

${labels}static int show(ncnn::Extractor& extractor)
{
    static const char* const outputs[] = {${outputs}};
    for (size_t i = 0; i < sizeof(outputs) / sizeof(outputs[0]); i++)
    {
        ncnn::Mat out;
        if (extractor.extract(outputs[i], out) != 0)
        {
            fprintf(stderr, "%s cannot be computed\\n", outputs[i]);
            return 1;
        }
        printf("%s: %d x %d x %d\\n", outputs[i], out.c, out.h, out.w);
        for (int c = 0; c < out.c; c++)
        {
            const float* values = out.channel(c);
            for (int j = 0; j < out.w * out.h && j < 10; j++)
                printf(" %g", values[j]);
            printf("\\n");
        }
    }
    return 0;
}
"""

PICTURE: Final = (
    """// Runs this bundle on one picture.
//
//   c++ example.cpp -o example -I<ncnn>/include/ncnn -L<ncnn>/lib -lncnn -fopenmp
//   ./example photo.ppm
//
// Pictures are binary PPM files, so that no library but ncnn is needed: convert photo.jpg photo.ppm

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "net.h"

static bool read_ppm(const char* path, std::vector<unsigned char>& rgb, int& columns, int& rows)
{
    FILE* file = fopen(path, "rb");
    if (!file)
        return false;
    int levels = 0;
    bool good = fscanf(file, "P6 %d %d %d", &columns, &rows, &levels) == 3 && levels == 255
                && columns > 0 && rows > 0 && columns < 65536 && rows < 65536;
    if (good)
    {
        fgetc(file);
        rgb.resize((size_t)columns * rows * 3);
        good = fread(rgb.data(), 1, rgb.size(), file) == rgb.size();
    }
    fclose(file);
    return good;
}

// (pixel - mean) * norm
static ncnn::Mat preprocess(const std::vector<unsigned char>& rgb, int columns, int rows)
{
    const int width = ${width};
    const int height = ${height};
    const float mean[] = {${mean}};
    const float norm[] = {${norm}};
    const int kind = ncnn::Mat::${pixels};
${source}${fit}    blob.substract_mean_normalize(mean, norm);
${swap}    return blob;
}
"""
    + _LOAD
    + """
int main(int argc, char** argv)
{
    std::vector<unsigned char> rgb;
    int columns = 0;
    int rows = 0;
    if (argc != 2 || !read_ppm(argv[1], rgb, columns, rows))
    {
        fprintf(stderr, "usage: %s photo.ppm\\n", argv[0]);
        return 2;
    }
    ncnn::Net net;
    if (load(net) != 0)
        return 1;
    ncnn::Extractor extractor = net.create_extractor();
    extractor.input(${input}, preprocess(rgb, columns, rows));
    return show(extractor);
}
"""
)

ARRAYS: Final = (
    """// Runs this bundle on arrays: for each input a file of float32 numbers without a header, of
// int32 numbers where they are indices.
//
//   c++ example.cpp -o example -I<ncnn>/include/ncnn -L<ncnn>/lib -lncnn -fopenmp

#include <cstdio>

#include "net.h"

// Channels of a Mat may have space between them.
static bool read_floats(const char* path, ncnn::Mat& blob)
{
    FILE* file = fopen(path, "rb");
    if (!file)
        return false;
    const size_t count = (size_t)blob.w * blob.h * blob.d;
    bool good = true;
    for (int c = 0; c < blob.c && good; c++)
    {
        float* values = blob.channel(c);
        good = fread(values, sizeof(float), count, file) == count;
    }
    fclose(file);
    return good;
}
"""
    + _LOAD
    + """
int main(int argc, char** argv)
{
    if (argc != ${count} + 1)
    {
        fprintf(stderr, "usage: %s FILE for each of the ${count} inputs\\n", argv[0]);
        return 2;
    }
    ncnn::Net net;
    if (load(net) != 0)
        return 1;
    ncnn::Extractor extractor = net.create_extractor();
${reads}    return show(extractor);
}
"""
)

READ: Final = """    {
        ncnn::Mat blob(${sizes});
        if (!read_floats(argv[${index} + 1], blob))
        {
            fprintf(stderr, "%s cannot be read\\n", argv[${index} + 1]);
            return 2;
        }
        extractor.input(${name}, blob);
    }
"""

SEVERAL: Final = """    net.opt.lightmode = false; // keeps every output until all are read
"""

COLOR: Final = """    const std::vector<unsigned char>& source = rgb;
"""

GRAY: Final = """    std::vector<unsigned char> source((size_t)columns * rows);
    for (size_t i = 0; i < source.size(); i++)
    {
        const unsigned char* p = &rgb[3 * i];
        source[i] = (19595 * p[0] + 38470 * p[1] + 7471 * p[2] + 32768) >> 16;
    }
"""

LABELS: Final = """// Rows of detections: label (1 is the first class), score, x0, y0, x1, y1.
"""

SWAP: Final = """    // Trained with x and y swapped.
    ncnn::Mat swapped(blob.h, blob.w, blob.c);
    for (int c = 0; c < blob.c; c++)
        for (int y = 0; y < blob.h; y++)
            for (int x = 0; x < blob.w; x++)
                swapped.channel(c).row(x)[y] = blob.channel(c).row(y)[x];
    blob = swapped;
"""

FITS: Final = {
    "squash": """    ncnn::Mat blob = ncnn::Mat::from_pixels_resize(
        source.data(), kind, columns, rows, width, height);
""",
    "letterbox": """\
    const double scale = std::min(width / (double)columns, height / (double)rows);
    const int w = std::max((int)nearbyint(columns * scale), 1);
    const int h = std::max((int)nearbyint(rows * scale), 1);
    ncnn::Mat inner = ncnn::Mat::from_pixels_resize(source.data(), kind, columns, rows, w, h);
    const int left = (width - w) / 2;
    const int top = (height - h) / 2;
    ncnn::Mat blob;
    ncnn::copy_make_border(inner, blob, top, height - h - top, left, width - w - left,
                           ncnn::BORDER_CONSTANT, ${fill}.f);
""",
    "center-crop": """\
    const double scale = ${short} ? (double)${short} / std::min(columns, rows) : 1.0;
    const int w = (int)nearbyint(columns * scale);
    const int h = (int)nearbyint(rows * scale);
    ncnn::Mat whole = ncnn::Mat::from_pixels_resize(source.data(), kind, columns, rows, w, h);
    const int left = (w - width) / 2;
    const int top = (h - height) / 2;
    ncnn::Mat blob;
    ncnn::copy_cut_border(whole, blob, top, h - height - top, left, w - width - left);
""",
}
"""How a picture gets the network's size."""
