use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::scratch::Scratch;

const PATIENCE: Duration = Duration::from_secs(10);

fn options(path: &Path, level: &str, shape: LineShape) -> LogOptions {
    let (date, _) = DateFormat::parse("DATE");
    let format = LineFormat { date, shape };
    let file = LogFile { path: path.to_owned(), bytes_max: 0, count: 0, format };
    LogOptions { level: LogLevel::parse(level).unwrap(), stderr: None, file: Some(file) }
}

/// What `log` leaves in a file of that shape.
fn logged(level: &str, shape: LineShape, log: impl FnOnce()) -> String {
    let dir = Scratch::new();
    let path = dir.path("w.log");
    let handle = Log::new(options(&path, level, shape)).unwrap();
    tracing::subscriber::with_default(handle.subscriber(), log);
    handle.flush(PATIENCE);
    fs::read_to_string(&path).unwrap()
}

fn template(source: &str) -> LineShape {
    LineShape::Template(Template::parse(source).0)
}

fn some_events() {
    tracing::info!(target: "w", conn = 7, addr = %"[::1]:9", "it {}", "works");
    tracing::warn!(target: "w", code = "SLOW READER", debug = ?Some(1), empty = "", "careful");
    tracing::debug!(target: "w", "unseen");
}

#[test]
fn text_for_people() {
    let lines = logged("info", LineShape::Text { colors: false }, some_events);
    let expected = "DATE  INFO w: it works conn=7 addr=[::1]:9\n\
                    DATE  WARN w: careful code=\"SLOW READER\" debug=Some(1) empty=\"\"\n";
    assert_eq!(lines, expected);
    let colored = logged("info", LineShape::Text { colors: true }, some_events);
    assert!(colored.starts_with("\u{1b}[2mDATE\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m "), "{colored:?}");
}

#[test]
fn json_for_programs() {
    let lines = logged("info", LineShape::Json, some_events);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let expected = serde_json::json!({
        "timestamp": "DATE", "name": "w", "level": "INFO", "message": "it works",
        "conn": 7, "addr": "[::1]:9",
    });
    assert_eq!(first, expected);
    assert_eq!(lines.lines().count(), 2);
    let kinds = logged("info", LineShape::Json, || {
        tracing::info!(t = true, i = -1i64, u = u64::MAX, f = 1.5, big = u128::MAX, "");
    });
    let kinds: Value = serde_json::from_str(&kinds).unwrap();
    assert_eq!(
        (&kinds["t"], &kinds["i"], &kinds["u"]),
        (&true.into(), &(-1).into(), &u64::MAX.into())
    );
    assert_eq!((&kinds["f"], &kinds["message"]), (&"1.5".into(), &"".into()));
}

#[test]
fn the_operators_own_shape() {
    let shape = template("%(asctime)s|%(name)s|%(levelname)-8s|%(levelno)03d|%(message)s");
    let lines = logged("debug", shape, some_events);
    let expected = "DATE|w|INFO    |020|it works conn=7 addr=[::1]:9\n\
                    DATE|w|WARNING |030|careful code=\"SLOW READER\" debug=Some(1) empty=\"\"\n\
                    DATE|w|DEBUG   |010|unseen\n";
    assert_eq!(lines, expected);
    let pid = logged("info", template("%(process)d %(msecs)03d"), || tracing::info!("x"));
    let (process, millis) = pid.trim_end().split_once(' ').unwrap();
    assert_eq!(process, std::process::id().to_string());
    assert!(millis.len() == 3 && millis.parse::<u32>().unwrap() < 1_000, "{pid}");
}

#[test]
fn nothing_that_a_client_sent_leaves_its_line_or_moves_a_cursor() {
    let evil = "x\u{1b}[2J\r\nFAKE INFO w: logged in\u{202e}\u{9b}31m\" key=1";
    for shape in [LineShape::Text { colors: false }, LineShape::Json, template("%(message)s")] {
        let lines = logged("info", shape.clone(), || {
            tracing::info!(content = evil, debug = ?evil, display = %evil, "{evil}");
        });
        assert_eq!(lines.lines().count(), 1, "{shape:?}");
        let unsafe_ones = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!lines.contains(unsafe_ones), "{shape:?}: {lines:?}");
    }
    let json = logged("info", LineShape::Json, || tracing::info!(content = evil, "{evil}"));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["content"], &json["message"]), (&evil.into(), &evil.into()));
}

#[test]
fn parts_of_the_program_have_levels_of_their_own() {
    let lines = logged("warn,noisy=debug", template("%(message)s"), || {
        tracing::info!(target: "quiet", "1");
        tracing::warn!(target: "quiet", "2");
        tracing::debug!(target: "noisy::inner", "3");
        tracing::trace!(target: "noisy", "4");
    });
    assert_eq!(lines, "2\n3\n");
}

#[test]
fn options_are_exchanged_while_it_runs() {
    let dir = Scratch::new();
    let (one, two) = (dir.path("one.log"), dir.path("two.log"));
    let handle = Log::new(options(&one, "warn", template("%(message)s"))).unwrap();
    let say = |text: &str| tracing::info!(target: "w", "{text}");
    tracing::subscriber::with_default(handle.subscriber(), || {
        say("too quiet");
        handle.apply(options(&two, "info", LineShape::Json)).unwrap();
        say("heard");
        handle.flush(PATIENCE);
        // What cannot be had changes nothing.
        fs::create_dir(dir.path("directory")).unwrap();
        let wrong = handle.apply(options(&dir.path("directory"), "off", LineShape::Json));
        let wrong = wrong.unwrap_err().to_string();
        assert!(wrong.starts_with("log.file: cannot open "), "{wrong}");
        say("still heard");
        handle.flush(PATIENCE);
        fs::rename(&two, dir.path("moved.log")).unwrap();
        handle.reopen();
        handle.flush(PATIENCE);
        say("in a new file");
    });
    handle.flush(PATIENCE);
    assert_eq!(fs::read_to_string(&one).unwrap(), "");
    let moved = fs::read_to_string(dir.path("moved.log")).unwrap();
    assert_eq!(moved.lines().count(), 2);
    assert!(fs::read_to_string(&two).unwrap().contains("in a new file"));
}

#[test]
fn a_file_that_cannot_be_opened_stops_the_start() {
    let dir = Scratch::new();
    let wrong = Log::new(options(&dir.path(""), "info", LineShape::Json)).unwrap_err();
    assert!(wrong.to_string().starts_with("log.file: cannot open "), "{wrong}");
}
