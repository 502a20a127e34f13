//! The whole relay: the bytes spell out what clients, sockets and clock do, choice after choice,
//! and the model says what must come of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    wardline_sim::run_bytes(bytes);
});
