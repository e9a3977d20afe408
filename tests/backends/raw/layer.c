/* One layer of an exported network, in the conventions of CMSIS-NN: maps are NHWC, offsets are
 * added to codes, what lies outside the map counts as nothing, multipliers are Q31 and shifts go
 * to the left. The build defines THE_LAYER, THE_MACROS, THE_INPUT and THE_GOLDEN, e.g. conv1,
 * CONV1, golden_case_0_data, golden_case_0_conv1, and SCALED where the layer has multipliers.
 */
#include <stdio.h>
#include <string.h>

#include "golden_case_0.h"
#include "model_params.h"

#define JOIN(a, b) a##_##b
#define NAMED(a, b) JOIN(a, b)
#define SIZE(name) NAMED(THE_MACROS, name)
#define ARRAY(name) NAMED(THE_LAYER, name)

__extension__ typedef __int128 wide; /* sums of 16-bit codes are wider than 32 bits */

#ifdef SCALED
static wide shifted(wide value, int right)
{
    const wide half = right > 0 ? (wide)1 << (right - 1) : 0;
    const wide up = (value + half) >> right;
    if (!strcmp(MODEL_ROUNDING, "half_even")) {
        const int tie = right > 0 && ((value + half) & (((wide)1 << right) - 1)) == 0;
        return tie ? up & ~(wide)1 : up;
    }
    if (!strcmp(MODEL_ROUNDING, "half_up"))
        return up;
    return value < 0 ? -((-value + half) >> right) : up;
}

static wide requantized(wide sum, int mult, int left)
{
    if (strcmp(MODEL_ROUNDING, "tflite_double"))
        return shifted(sum * mult, 31 - left);
    wide raised = left > 0 ? sum << left : sum;
    raised = raised > INT32_MAX ? INT32_MAX : raised < INT32_MIN ? INT32_MIN : raised;
    const wide product = raised * mult;
    const wide high = (product + (product >= 0 ? 1 << 30 : 1 - (1 << 30))) / ((wide)1 << 31);
    return shifted(high, left < 0 ? -left : 0);
}
#endif

static wide product(int x, int w)
{
    if (!SIZE(WEIGHT_IS_LOG2))
        return (wide)x * w;
    if (w == 0)
        return 0;
    return w < 0 ? -(wide)x * ((wide)1 << (-w - 1)) : (wide)x * ((wide)1 << (w - 1));
}

static wide summed(int o, int row, int column)
{
    const int depthwise = SIZE(GROUPS) > 1 && SIZE(GROUPS) == SIZE(IN_CH);
    const int inputs = SIZE(IN_CH) / SIZE(GROUPS);
    const int first = o / (SIZE(OUT_CH) / SIZE(GROUPS)) * inputs;
    wide sum = ARRAY(biases)[o];
    for (int ky = 0; ky < SIZE(FILTER_Y); ky++)
        for (int kx = 0; kx < SIZE(FILTER_X); kx++) {
            const int y = row * SIZE(STRIDE_Y) - SIZE(PAD_Y) + ky * SIZE(DILATION_Y);
            const int x = column * SIZE(STRIDE_X) - SIZE(PAD_X) + kx * SIZE(DILATION_X);
            if (y < 0 || y >= SIZE(INPUT_H) || x < 0 || x >= SIZE(INPUT_W))
                continue;
            const int place = ky * SIZE(FILTER_X) + kx;
            for (int i = 0; i < inputs; i++) {
                const int code = THE_INPUT[(y * SIZE(INPUT_W) + x) * SIZE(IN_CH) + first + i];
                const int w = depthwise
                    ? ARRAY(weights)[place * SIZE(OUT_CH) + o]
                    : ARRAY(weights)[(o * SIZE(FILTER_Y) * SIZE(FILTER_X) + place) * inputs + i];
                sum += product(code + SIZE(INPUT_OFFSET), w);
            }
        }
    return sum;
}

int main(void)
{
    int wrong = 0;
    for (int row = 0; row < SIZE(OUTPUT_H); row++)
        for (int column = 0; column < SIZE(OUTPUT_W); column++)
            for (int o = 0; o < SIZE(OUT_CH); o++) {
                wide sum = summed(o, row, column);
#ifdef SCALED
                sum = requantized(sum, ARRAY(output_mult)[o], ARRAY(output_shift)[o]);
                sum += SIZE(OUTPUT_OFFSET);
#endif
                sum = sum < SIZE(OUT_ACTIVATION_MIN) ? SIZE(OUT_ACTIVATION_MIN) : sum;
                sum = sum > SIZE(OUT_ACTIVATION_MAX) ? SIZE(OUT_ACTIVATION_MAX) : sum;
                wrong += sum != THE_GOLDEN[(row * SIZE(OUTPUT_W) + column) * SIZE(OUT_CH) + o];
            }
    printf("%d\n", wrong);
    return wrong != 0;
}
