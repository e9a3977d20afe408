// One sum to one output code: multiply, shift right with rounding, add the zero point, clamp.
//
//     y = clamp(ZERO_POINT + round(sum * multiplier / 2^shift), LOW, HIGH)
//
// Purely combinational. In a power-of-two network every multiplier is 1: tie it to 1 and the
// product goes away.

module requantize #(
    parameter SUM_BITS = 32,
    parameter MULTIPLIER_BITS = 31,
    parameter SHIFT_BITS = 6,
    parameter OUTPUT_BITS = 8,
    parameter SCALED = 1,      // 0: the sum itself is the result
    parameter ROUNDING = 0,    // 0 half_up, 1 half_even, 2 half_away, 3 tflite_double
    parameter signed [63:0] ZERO_POINT = 0,
    parameter signed [63:0] LOW = -128,
    parameter signed [63:0] HIGH = 127
) (
    input  logic signed [SUM_BITS-1:0] sum,
    input  logic [MULTIPLIER_BITS-1:0] multiplier,
    input  logic [SHIFT_BITS-1:0] shift,
    output logic [OUTPUT_BITS-1:0] code
);

  // Wide enough for the product, its sign, and half of the largest divisor.
  localparam WIDE = (SUM_BITS > 32 ? SUM_BITS : 32) + MULTIPLIER_BITS + 34;

  localparam signed [WIDE-1:0] ONE = 1;

  logic signed [WIDE-1:0] factor, scaled, result;

  assign factor = $signed({1'b0, multiplier});

  // value / 2^places, rounded by a rule. `up` is half up; where the bits it cuts off are all 0, the
  // value was exactly between two codes.
  function automatic logic signed [WIDE-1:0] divided(input logic signed [WIDE-1:0] value,
                                                     input integer places, input integer rule);
    logic signed [WIDE-1:0] half, up, away;
    begin
      half = places == 0 ? 0 : ONE <<< (places - 1);
      up = value + half;
      away = (value < 0 ? -value : value) + half;
      divided = up >>> places;
      if (rule == 1 && places != 0 && (up & ((ONE <<< places) - 1)) == 0) divided = divided & ~ONE;
      if (rule == 2) divided = value < 0 ? -(away >>> places) : away >>> places;
    end
  endfunction

  generate
    if (!SCALED) begin : plain
      assign scaled = sum;
    end else if (ROUNDING == 3) begin : doubled
      // TensorFlow Lite rounds twice: the high half of a doubled product, then a shift.
      localparam signed [WIDE-1:0] MOST = 64'sd2147483647;
      logic signed [WIDE-1:0] raised, limited, product, nudged, high;
      assign raised = shift < 31 ? sum * (ONE <<< (31 - shift)) : sum;
      assign limited = raised > MOST ? MOST : raised < -MOST - 1 ? -MOST - 1 : raised;
      assign product = limited * factor;
      assign nudged = product < 0 ? product + 1 - (ONE <<< 30) : product + (ONE <<< 30);
      assign high = nudged < 0 ? -((-nudged) >>> 31) : nudged >>> 31;
      assign scaled = divided(high, shift > 31 ? shift - 31 : 0, 2);
    end else begin : single
      logic signed [WIDE-1:0] product;
      assign product = sum * factor;
      assign scaled = divided(product, shift, ROUNDING);
    end
  endgenerate

  assign result = scaled + (SCALED ? ZERO_POINT : 0);
  assign code = result < LOW ? LOW[OUTPUT_BITS-1:0]
              : result > HIGH ? HIGH[OUTPUT_BITS-1:0] : result[OUTPUT_BITS-1:0];

endmodule
