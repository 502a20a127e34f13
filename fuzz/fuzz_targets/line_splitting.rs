//! Whatever a client says comes out as the same lines, however it is cut into receives, and those
//! are the lines that a naive reading of the dialect says.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    wardline_sim::run_lines(bytes);
});
