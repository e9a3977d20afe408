"""Integer programs: what hardware computes, and the executor that says what comes out."""
