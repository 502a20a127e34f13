//! Which engine is taken, and what is said where one cannot be had.

use crate::harness::{Outcome, engines, known_engines, wardline};

/// Best first, whatever can run.
const ALL: [&str; 3] = ["ring", "tokio-uring", "tokio"];

#[test]
fn every_engine_is_listed_with_what_keeps_it_from_running() {
    let known = known_engines();
    let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ALL);
    assert_eq!(known[2].1, None, "the portable one always can");
    let outcome = Outcome::of(wardline().arg("engines"));
    for ((name, why_not), line) in known.iter().zip(outcome.stdout.lines()) {
        assert!(line.starts_with(name), "{}", outcome.stdout);
        let says = why_not.as_deref().unwrap_or("usable");
        assert!(line.contains(says), "{}", outcome.stdout);
    }
    assert_eq!(outcome.stdout.matches("what auto takes").count(), 1, "{}", outcome.stdout);
}

#[test]
fn an_engine_that_nobody_knows_is_a_wrong_setting() {
    for command in ["serve", "check", "plan"] {
        let outcome = Outcome::of(wardline().args([command, "--engine", "epoll"]));
        assert_eq!(outcome.code, Some(3), "{outcome:?}");
        assert!(outcome.stderr.contains("--engine"), "{outcome:?}");
    }
}

#[test]
fn the_plan_is_that_of_the_engine() {
    for engine in engines() {
        let outcome = Outcome::of(wardline().args(["plan", "--json", "--engine", engine]));
        let plan: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        assert_eq!(plan["engine"], *engine);
        assert!(plan["engine_bytes"].as_u64() > Some(0), "{plan}");
    }
}

#[cfg(not(all(target_os = "linux", not(wardline_portable))))]
#[test]
fn there_is_only_the_portable_one_elsewhere_and_it_is_said() {
    assert_eq!(engines(), ["tokio"]);
    for engine in ["ring", "tokio-uring"] {
        for command in ["serve", "check", "plan"] {
            let outcome = Outcome::of(wardline().args([command, "--engine", engine]));
            assert_eq!(outcome.code, Some(3), "{outcome:?}");
            assert!(outcome.stderr.contains("not in this build"), "{outcome:?}");
        }
    }
}

#[cfg(all(target_os = "linux", not(wardline_portable)))]
mod linux {
    use std::io;
    use std::process::{Child, Command};

    use super::*;
    use crate::harness::{Launch, forbidden};

    /// What the build for Linux has.
    const BUILT: [&str; 3] = ["ring", "tokio-uring", "tokio"];

    type Spawn = fn(&mut Command) -> io::Result<Child>;

    /// Ways to take io_uring away, and the words that tell them apart.
    const FORBIDDEN: [(Spawn, &str); 4] = [
        (forbidden::setup_eperm, "seccomp profile"),
        (forbidden::setup_enosys, "no io_uring"),
        (forbidden::enter_eperm, "io_uring_enter is forbidden"),
        (forbidden::register_eacces, "io_uring_register is forbidden"),
    ];

    /// Whether the kernel gives anybody a ring, as far as it says so itself and shows it.
    fn has_io_uring() -> bool {
        let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        switch.is_ok_and(|value| value.trim() == "0") && io_uring::IoUring::new(1).is_ok()
    }

    #[test]
    fn no_engine_goes_untested_on_a_kernel_that_can_run_it() {
        if std::env::var_os("WARDLINE_TEST_ENGINES").is_some() {
            eprintln!("SKIPPED: WARDLINE_TEST_ENGINES says which engines are tested");
            return;
        }
        if !has_io_uring() {
            eprintln!("SKIPPED: this kernel has no io_uring for us, so two engines go untested");
            return;
        }
        let known = known_engines();
        for engine in BUILT {
            assert!(engines().contains(&engine), "{engine} was skipped: {known:?}");
        }
    }

    #[test]
    fn auto_takes_the_best_that_runs_and_says_which_and_why() {
        let relay = Launch::new("auto").start();
        let known = known_engines();
        let best = known.iter().find(|(_, why_not)| why_not.is_none()).expect("tokio, at least");
        relay.wait_for_log(&format!("engine {}: ", best.0));
        relay.wait_for_log(&format!("engine {}; try", best.0));
        for (name, why_not) in known.iter().take_while(|(name, _)| *name != best.0) {
            let why_not = why_not.as_deref().expect("it would have been taken");
            relay.wait_for_log(&format!("{name} cannot run: {why_not}"));
        }
    }

    #[test]
    fn where_io_uring_is_forbidden_it_serves_on_tokio_and_says_why() {
        for (spawn, says) in FORBIDDEN {
            let relay = Launch::new("auto").spawned_by(spawn).start();
            let [mut a, mut b] = relay.room();
            a.say("hello");
            b.expect(&a.envelope("hello"));
            relay.wait_for_log("engine tokio: ring cannot run: ");
            relay.wait_for_log("tokio-uring cannot run: ");
            relay.wait_for_log(says);
            relay.wait_for_log("engine tokio; try");
        }
    }

    #[test]
    fn where_io_uring_is_forbidden_an_engine_asked_for_by_name_is_refused() {
        for (spawn, says) in FORBIDDEN {
            for engine in BUILT.into_iter().filter(|engine| *engine != "tokio") {
                let arguments = ["serve", "--engine", engine, "--listen", "line://127.0.0.1:0"];
                let outcome = Outcome::of_spawned(wardline().args(arguments), spawn);
                assert_eq!(outcome.code, Some(3), "{outcome:?}");
                let refusal = format!("\"{engine}\" cannot run here: ");
                assert!(outcome.stderr.contains(&refusal), "{outcome:?}");
                assert!(outcome.stderr.contains(says), "{outcome:?}");
            }
        }
    }
}
