// A convolution, depthwise convolution or fully connected layer on integers.
//
// LANES output channels are computed side by side, one multiplication each in a clock cycle:
//
//     for each block of LANES output channels, each output row, each output column:
//         sum = bias << BIAS_SHIFT
//         for each input channel of the group, each kernel row, each kernel column:
//             sum += x * w            x is PAD_VALUE outside the map
//         y = requantize(sum)
//
// The engine asks for words by address and gets them one cycle later, as a block memory gives
// them. Weights are in the order "O/LANES I H W | O%LANES", lane 0 in the lowest bits; the feature
// map is in the order "N C H W", a code a word. A fully connected layer is a convolution of a 1x1
// map with a 1x1 kernel.

module engine #(
    parameter LANES = 8,
    parameter X_BITS = 8,
    parameter X_SIGNED = 1,
    parameter WEIGHT_BITS = 8,
    parameter WEIGHT_LOG2 = 0,  // 1: a weight c stands for sign(c) * 2^(|c| - 1), or 0
    parameter BIAS_BITS = 32,
    parameter BIAS_SHIFT = 0,
    parameter MULTIPLIER_BITS = 31,
    parameter SHIFT_BITS = 6,
    parameter SUM_BITS = 32,
    parameter Y_BITS = 8,
    parameter INPUTS = 1,       // channels
    parameter HEIGHT = 1,
    parameter WIDTH = 1,
    parameter OUTPUTS = 8,      // channels
    parameter OUT_HEIGHT = 1,
    parameter OUT_WIDTH = 1,
    parameter GROUPS = 1,
    parameter KERNEL_Y = 1,
    parameter KERNEL_X = 1,
    parameter STRIDE_Y = 1,
    parameter STRIDE_X = 1,
    parameter PAD_TOP = 0,
    parameter PAD_LEFT = 0,
    parameter DILATION_Y = 1,
    parameter DILATION_X = 1,
    parameter signed [63:0] PAD_VALUE = 0,
    parameter SCALED = 1,
    parameter ROUNDING = 0,
    parameter signed [63:0] ZERO_POINT = 0,
    parameter signed [63:0] LOW = -128,
    parameter signed [63:0] HIGH = 127
) (
    input  logic clock,
    input  logic reset,  // hold for one cycle to begin
    output logic done,

    output logic [LANES*32-1:0] x_address,  // one a lane: groups read different channels
    input  logic [LANES*X_BITS-1:0] x_data,
    output logic [31:0] w_address,
    input  logic [LANES*WEIGHT_BITS-1:0] w_data,
    output logic [31:0] block_address,      // of bias, multiplier and shift
    input  logic [LANES*BIAS_BITS-1:0] bias_data,
    input  logic [LANES*MULTIPLIER_BITS-1:0] multiplier_data,
    input  logic [LANES*SHIFT_BITS-1:0] shift_data,

    output logic y_valid,  // outputs come block by block, rows and columns within
    output logic [LANES*Y_BITS-1:0] y_data
);

  localparam BLOCKS = (OUTPUTS + LANES - 1) / LANES;
  localparam GROUP_INPUTS = INPUTS / GROUPS;
  localparam GROUP_OUTPUTS = OUTPUTS / GROUPS;

  // --- where we are: the first stage asks for words ---------------------------------------------

  logic running;
  integer block, row, column, channel, ky, kx;

  wire end_kx = kx == KERNEL_X - 1;
  wire end_ky = end_kx && ky == KERNEL_Y - 1;
  wire end_sum = end_ky && channel == GROUP_INPUTS - 1;
  wire end_row = end_sum && column == OUT_WIDTH - 1;
  wire end_map = end_row && row == OUT_HEIGHT - 1;
  wire end_all = end_map && block == BLOCKS - 1;

  always_ff @(posedge clock) begin
    if (reset) begin
      running <= 1;
      {block, row, column, channel, ky, kx} <= 0;
    end else if (running) begin
      kx <= end_kx ? 0 : kx + 1;
      if (end_kx) ky <= end_ky ? 0 : ky + 1;
      if (end_ky) channel <= end_sum ? 0 : channel + 1;
      if (end_sum) column <= end_row ? 0 : column + 1;
      if (end_row) row <= end_map ? 0 : row + 1;
      if (end_map) block <= end_all ? 0 : block + 1;
      if (end_all) running <= 0;
    end
  end

  wire signed [31:0] y_in = row * STRIDE_Y - PAD_TOP + ky * DILATION_Y;
  wire signed [31:0] x_in = column * STRIDE_X - PAD_LEFT + kx * DILATION_X;
  wire outside = y_in < 0 || y_in >= HEIGHT || x_in < 0 || x_in >= WIDTH;

  assign block_address = block;
  assign w_address = ((block * GROUP_INPUTS + channel) * KERNEL_Y + ky) * KERNEL_X + kx;

  // --- the second stage multiplies and adds, the third gives the result -------------------------

  logic valid, padding, first, last, finished, summed;

  always_ff @(posedge clock) begin
    valid <= running && !reset;
    padding <= outside;
    first <= channel == 0 && ky == 0 && kx == 0;
    last <= end_sum;
    finished <= end_all;
    summed <= valid && last && !reset;
    done <= valid && last && finished && !reset;
  end

  assign y_valid = summed;

  genvar lane;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : lanes
      // Lanes beyond the last output channel compute something that nobody reads.
      wire [31:0] output_channel = block * LANES + lane;
      wire [31:0] group = GROUPS == 1 || output_channel >= OUTPUTS
                        ? 0 : output_channel / GROUP_OUTPUTS;
      assign x_address[lane*32+:32] =
          outside ? 0 : ((group * GROUP_INPUTS + channel) * HEIGHT + y_in) * WIDTH + x_in;

      // One bit more, so that unsigned codes stay positive.
      wire [X_BITS-1:0] code = x_data[lane*X_BITS+:X_BITS];
      wire signed [X_BITS:0] value = padding ? PAD_VALUE : {X_SIGNED ? code[X_BITS-1] : 1'b0, code};
      wire signed [WEIGHT_BITS-1:0] weight = w_data[lane*WEIGHT_BITS+:WEIGHT_BITS];
      wire signed [BIAS_BITS-1:0] bias = bias_data[lane*BIAS_BITS+:BIAS_BITS];
      wire signed [SUM_BITS-1:0] start = bias;

      logic signed [SUM_BITS-1:0] product, sum, total;
      if (WEIGHT_LOG2) begin : shift_and_add
        wire [WEIGHT_BITS-1:0] size = weight < 0 ? -weight : weight;
        wire signed [SUM_BITS-1:0] power = size == 0 ? 0 : $signed(value) <<< (size - 1);
        assign product = weight < 0 ? -power : power;
      end else begin : multiply_and_add
        assign product = value * weight;
      end

      wire signed [SUM_BITS-1:0] next = (first ? start <<< BIAS_SHIFT : sum) + product;

      logic [MULTIPLIER_BITS-1:0] multiplier;
      logic [SHIFT_BITS-1:0] shift;
      always_ff @(posedge clock) begin
        if (valid) sum <= next;
        if (valid && last) begin
          total <= next;
          multiplier <= multiplier_data[lane*MULTIPLIER_BITS+:MULTIPLIER_BITS];
          shift <= shift_data[lane*SHIFT_BITS+:SHIFT_BITS];
        end
      end

      requantize #(
          .SUM_BITS(SUM_BITS), .MULTIPLIER_BITS(MULTIPLIER_BITS), .SHIFT_BITS(SHIFT_BITS),
          .OUTPUT_BITS(Y_BITS), .SCALED(SCALED), .ROUNDING(ROUNDING),
          .ZERO_POINT(ZERO_POINT), .LOW(LOW), .HIGH(HIGH)
      ) requantizer (
          .sum(total), .multiplier(multiplier), .shift(shift), .code(y_data[lane*Y_BITS+:Y_BITS])
      );
    end
  endgenerate

endmodule
