//! The relay with native sessions: the bytes spell out what clients, sockets, clock and whoever is
//! on the path do, choice after choice, and the model says what must come of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    wardline_sim::run_agent_bytes(bytes);
});
