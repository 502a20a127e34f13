//! Both machines of the native handshake, and somebody on the path between them who changes what
//! the bytes spell out: nobody is content with a handshake that was meddled with.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    wardline_sim::run_native_handshake(bytes);
});
