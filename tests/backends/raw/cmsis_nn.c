/* One exported convolution through CMSIS-NN's own kernel. The build defines what layer.c wants. */
#include <stdio.h>

#include "arm_nnfunctions.h"
#include "golden_case_0.h"
#include "model_params.h"

#define JOIN(a, b) a##_##b
#define NAMED(a, b) JOIN(a, b)
#define SIZE(name) NAMED(THE_MACROS, name)
#define ARRAY(name) NAMED(THE_LAYER, name)
#define OUTPUTS (SIZE(OUTPUT_H) * SIZE(OUTPUT_W) * SIZE(OUT_CH))

int main(void)
{
    static int8_t buffer[1 << 20], result[OUTPUTS];
    const cmsis_nn_conv_params params = {
        .input_offset = SIZE(INPUT_OFFSET),
        .output_offset = SIZE(OUTPUT_OFFSET),
        .stride = {.w = SIZE(STRIDE_X), .h = SIZE(STRIDE_Y)},
        .padding = {.w = SIZE(PAD_X), .h = SIZE(PAD_Y)},
        .dilation = {.w = SIZE(DILATION_X), .h = SIZE(DILATION_Y)},
        .activation = {.min = SIZE(OUT_ACTIVATION_MIN), .max = SIZE(OUT_ACTIVATION_MAX)},
    };
    const cmsis_nn_per_channel_quant_params scaling = {
        .multiplier = (int32_t *)ARRAY(output_mult),
        .shift = (int32_t *)ARRAY(output_shift),
    };
    const cmsis_nn_dims input = {1, SIZE(INPUT_H), SIZE(INPUT_W), SIZE(IN_CH)};
    const cmsis_nn_dims filter = {SIZE(OUT_CH), SIZE(FILTER_Y), SIZE(FILTER_X), SIZE(IN_CH)};
    const cmsis_nn_dims bias = {1, 1, 1, SIZE(OUT_CH)};
    const cmsis_nn_dims output = {1, SIZE(OUTPUT_H), SIZE(OUTPUT_W), SIZE(OUT_CH)};
    const cmsis_nn_context context = {.buf = buffer, .size = sizeof buffer};
    int wrong = arm_convolve_s8(&context, &params, &scaling, &input, THE_INPUT, &filter,
                                ARRAY(weights), &bias, ARRAY(biases), NULL, &output, result) != 0;
    for (int i = 0; i < OUTPUTS; i++)
        wrong += result[i] != THE_GOLDEN[i];
    printf("%d\n", wrong);
    return wrong != 0;
}
