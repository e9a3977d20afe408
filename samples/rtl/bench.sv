// Runs one layer of a bundle through the engine and compares every output code with the golden
// vector. The package `layer` (written by layer.py from manifest.json) says what the layer is.

module bench;

  import layer::*;

  localparam BLOCKS = (OUTPUTS + LANES - 1) / LANES;
  localparam MAP = OUT_HEIGHT * OUT_WIDTH;
  localparam STEPS = BLOCKS * (INPUTS / GROUPS) * KERNEL_Y * KERNEL_X;

  // Multiplier and shift may be one for all channels, and then have one lane.
  localparam SCALE_LANES = SHARED_SCALE ? 1 : LANES;
  localparam SCALES = SHARED_SCALE ? 1 : BLOCKS;

  logic [X_BITS-1:0] x [0:INPUTS*HEIGHT*WIDTH-1];
  logic [LANES*WEIGHT_BITS-1:0] w [0:STEPS-1];
  logic [LANES*BIAS_BITS-1:0] b [0:BLOCKS-1];
  logic [SCALE_LANES*MULTIPLIER_BITS-1:0] m [0:SCALES-1];
  logic [SCALE_LANES*SHIFT_BITS-1:0] s [0:SCALES-1];
  logic [Y_BITS-1:0] golden [0:OUTPUTS*MAP-1];

  logic clock = 0, reset = 1;
  always #1 clock = !clock;

  logic done, y_valid;
  logic [LANES*32-1:0] x_address;
  logic [31:0] w_address, block_address;
  logic [LANES*X_BITS-1:0] x_data;
  logic [LANES*WEIGHT_BITS-1:0] w_data;
  logic [LANES*BIAS_BITS-1:0] bias_data;
  logic [LANES*MULTIPLIER_BITS-1:0] multiplier_data;
  logic [LANES*SHIFT_BITS-1:0] shift_data;
  logic [LANES*Y_BITS-1:0] y_data;

  engine #(
      .LANES(LANES), .X_BITS(X_BITS), .X_SIGNED(X_SIGNED),
      .WEIGHT_BITS(WEIGHT_BITS), .WEIGHT_LOG2(WEIGHT_LOG2),
      .BIAS_BITS(BIAS_BITS), .BIAS_SHIFT(BIAS_SHIFT),
      .MULTIPLIER_BITS(MULTIPLIER_BITS), .SHIFT_BITS(SHIFT_BITS), .SUM_BITS(SUM_BITS),
      .Y_BITS(Y_BITS), .INPUTS(INPUTS), .HEIGHT(HEIGHT), .WIDTH(WIDTH),
      .OUTPUTS(OUTPUTS), .OUT_HEIGHT(OUT_HEIGHT), .OUT_WIDTH(OUT_WIDTH), .GROUPS(GROUPS),
      .KERNEL_Y(KERNEL_Y), .KERNEL_X(KERNEL_X), .STRIDE_Y(STRIDE_Y), .STRIDE_X(STRIDE_X),
      .PAD_TOP(PAD_TOP), .PAD_LEFT(PAD_LEFT), .DILATION_Y(DILATION_Y), .DILATION_X(DILATION_X),
      .PAD_VALUE(PAD_VALUE), .SCALED(SCALED), .ROUNDING(ROUNDING),
      .ZERO_POINT(ZERO_POINT), .LOW(LOW), .HIGH(HIGH)
  ) engine (
      .clock(clock), .reset(reset), .done(done),
      .x_address(x_address), .x_data(x_data), .w_address(w_address), .w_data(w_data),
      .block_address(block_address), .bias_data(bias_data),
      .multiplier_data(multiplier_data), .shift_data(shift_data),
      .y_valid(y_valid), .y_data(y_data)
  );

  // Memories that answer one cycle later.
  always_ff @(posedge clock) begin
    w_data <= w[w_address];
    bias_data <= b[block_address];
    multiplier_data <= SHARED_SCALE ? {LANES{m[0][MULTIPLIER_BITS-1:0]}} : m[block_address];
    shift_data <= SHARED_SCALE ? {LANES{s[0][SHIFT_BITS-1:0]}} : s[block_address];
  end
  genvar lane;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : ports
      always_ff @(posedge clock)
        x_data[lane*X_BITS+:X_BITS] <= x[x_address[lane*32+:32]];
    end
  endgenerate

  integer place = 0, wrong = 0, cycles = 0, first_wrong = -1, i, index;
  logic [Y_BITS-1:0] got, expected, first_got;

  always @(posedge clock) begin
    cycles = cycles + 1;
    if (y_valid) begin
      for (i = 0; i < LANES; i = i + 1) begin
        index = ((place / MAP) * LANES + i) * MAP + place % MAP;
        if (index < OUTPUTS * MAP) begin
          got = y_data[i*Y_BITS+:Y_BITS];
          expected = golden[index];
          // A code with unknown bits is wrong whatever is expected: a memory was not loaded.
          if (got !== expected || ^got === 1'bx) begin
            if (wrong == 0 || index < first_wrong) begin
              first_wrong = index;
              first_got = got;
            end
            wrong = wrong + 1;
          end
        end
      end
      place = place + 1;
    end
    if (done) begin
      if (wrong == 0 && place == BLOCKS * MAP)
        $display("PASS %0s: %0d codes, %0d cycles", NAME, OUTPUTS * MAP, cycles);
      else begin
        $display("FAIL %0s: %0d of %0d codes differ", NAME, wrong, OUTPUTS * MAP);
        $display("  first: channel %0d, row %0d, column %0d: got %h, golden %h",
                 first_wrong / MAP, first_wrong / OUT_WIDTH % OUT_HEIGHT,
                 first_wrong % OUT_WIDTH, first_got, golden[first_wrong]);
      end
      $finish;
    end
  end

  initial begin
    $readmemh(X_FILE, x);
    $readmemh(WEIGHT_FILE, w);
    $readmemh(BIAS_FILE, b);
    if (SCALED) $readmemh(MULTIPLIER_FILE, m);
    if (SCALED) $readmemh(SHIFT_FILE, s);
    $readmemh(GOLDEN_FILE, golden);
    repeat (2) @(posedge clock);
    #1 reset = 0;
  end

endmodule
