//! How many instructions the hot paths of the core take: figures that no neighbour disturbs.
//!
//! ```text
//! cargo bench -p wardline-bench --bench counts              against counts.txt; 2 % up fails
//! cargo bench -p wardline-bench --bench counts -- write     writes counts.txt anew
//! ```
//!
//! Each path runs in a process of its own under valgrind's callgrind, a number of times and twice
//! that number; the difference has no start-up in it. Seeds, time and environment are fixed, so the
//! figures are the same each time. They change with the compiler, the C library and what vector
//! instructions the processor has, as well as with the code.

#[path = "counts/native.rs"]
mod native;
mod units;

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use native::{controls, directs, frames_in, lagging, native_turns, pings, record_open};
use units::{NOW, Room, batch};
use wardline_core::line::{Envelope, Suffix, is_plain};
use wardline_core::{Bucket, Duration, Rate, Remote};

/// The share by which a figure may differ from what is written down.
const TOLERANCE: f64 = 0.02;
/// Messages that come in together.
const BATCH: u64 = 64;

/// A hot path: does its work so many times.
struct HotPath {
    name: &'static str,
    /// How often, the first time.
    times: u64,
    /// In each of these, the operation is done so often.
    operations: u64,
    run: fn(u64),
}

const PATHS: [HotPath; 23] = [
    HotPath { name: "envelope-plain-64", times: 4_000, operations: 1, run: envelope_plain },
    HotPath { name: "envelope-json-64", times: 4_000, operations: 1, run: envelope_json },
    HotPath { name: "line-in-nobody", times: 200, operations: BATCH, run: |n| turns(n, 0, BATCH) },
    HotPath {
        name: "line-in-1-reader",
        times: 200,
        operations: BATCH,
        run: |n| turns(n, 1, BATCH),
    },
    HotPath { name: "append-100-readers", times: 200, operations: BATCH, run: appends },
    HotPath { name: "turn-1-to-1", times: 2_000, operations: 1, run: |n| turns(n, 1, 1) },
    HotPath { name: "turn-1-to-100", times: 200, operations: 1, run: |n| turns(n, 100, 1) },
    HotPath { name: "turn-1-to-200", times: 200, operations: 1, run: |n| turns(n, 200, 1) },
    HotPath { name: "turn-10-to-10", times: 500, operations: 1, run: everybody },
    HotPath { name: "bucket-take", times: 20_000, operations: 1, run: bucket },
    HotPath { name: "quarantine-refuse", times: 10_000, operations: 1, run: refuse },
    HotPath { name: "accept-and-close", times: 2_000, operations: 1, run: visits },
    HotPath { name: "control-decode", times: 4_000, operations: 1, run: controls },
    HotPath { name: "record-open-1", times: 2_000, operations: 1, run: |n| record_open(n, 1) },
    HotPath {
        name: "record-open-64",
        times: 200,
        operations: BATCH,
        run: |n| record_open(n, BATCH as usize),
    },
    HotPath { name: "frame-in-nobody", times: 200, operations: BATCH, run: |n| frames_in(n) },
    HotPath {
        name: "native-1-to-1",
        times: 1_000,
        operations: 1,
        run: |n| native_turns(n, 1_000, 1),
    },
    HotPath {
        name: "native-1-to-100",
        times: 100,
        operations: 1,
        run: |n| native_turns(n, 100, 100),
    },
    HotPath {
        name: "native-1-to-200",
        times: 100,
        operations: 1,
        run: |n| native_turns(n, 100, 200),
    },
    HotPath { name: LAG_NOBODY, times: 50, operations: 1, run: |n| lagging(n, 50, false) },
    HotPath { name: LAG, times: 50, operations: 1, run: |n| lagging(n, 50, true) },
    HotPath { name: "direct-pass-on", times: 1_000, operations: 1, run: directs },
    HotPath { name: "ping-pong", times: 1_000, operations: 1, run: pings },
];

/// What a caught-up reader more adds to a turn: offered, gathered, sent, waiting again.
const READER: &str = "caught-up-reader";
/// The same of a native reader: what it is sent is tagged for it, by a digest that is at hand.
const NATIVE_READER: &str = "native-reader-at-head";
/// Records come in for nobody, and for one reader that is sent all of them together.
const LAG_NOBODY: &str = "native-56k-nobody";
const LAG: &str = "native-56k-laggard";
/// The difference: what a laggard costs, whose batches nobody has had.
const LAGGARD: &str = "native-laggard";

fn envelope_plain(times: u64) {
    envelopes(times, &[b'x'; 64]);
}

fn envelope_json(times: u64) {
    envelopes(times, &b"{\"a\":\"bcdefgh\",\"i\":12}".repeat(3)[..64]);
}

fn envelopes(times: u64, line: &[u8]) {
    let suffix = Suffix::new(SocketAddr::from(([127, 0, 0, 1], 50_000)));
    let mut out = vec![0; Envelope::new(line, &suffix).len()];
    for _ in 0..times {
        black_box(is_plain(black_box(line)));
        Envelope::new(black_box(line), &suffix).fill(&mut out);
        black_box(&out);
    }
}

/// So many lines come in together, and go out to so many readers.
fn turns(times: u64, readers: u16, lines: u64) {
    let mut room = Room::of(readers + 1);
    let input = batch(&[b'x'; 64], lines);
    for _ in 0..times {
        room.hear(0, black_box(&input));
        room.drain();
    }
    assert!(readers == 0 || room.sent() > 0, "nothing was sent");
}

/// Lines come in one by one, and go out together: what an append costs in a topic of a hundred.
fn appends(times: u64) {
    let mut room = Room::of(101);
    let input = batch(&[b'x'; 64], 1);
    for _ in 0..times {
        for _ in 0..BATCH {
            room.hear(0, black_box(&input));
        }
        room.drain();
    }
    assert!(room.sent() > 0, "nothing was sent");
}

/// Ten say a line each, to the nine others.
fn everybody(times: u64) {
    let mut room = Room::of(10);
    let input = batch(&[b'x'; 64], 1);
    for _ in 0..times {
        for member in 0..10 {
            room.hear(member, black_box(&input));
        }
        room.drain();
    }
    assert!(room.sent() > 0, "nothing was sent");
}

fn bucket(times: u64) {
    let rate = Rate::per_second(1_000);
    let mut bucket = Bucket::default();
    let mut now = NOW;
    for _ in 0..times {
        assert!(black_box(&mut bucket).take(rate, black_box(now), 1));
        now = now.after(Duration::from_millis(1));
    }
}

fn refuse(times: u64) {
    let mut room = Room::of(0);
    let banned = room.ban();
    for _ in 0..times {
        assert!(room.relay.handle_accept(NOW, black_box(banned)).is_err());
    }
}

fn visits(times: u64) {
    let mut room = Room::of(0);
    let remote = Remote { addr: SocketAddr::from(([192, 0, 3, 7], 9)), topic: room.topic };
    let mut now = NOW;
    for _ in 0..times {
        now = now.after(Duration::from_secs(60));
        room.visit(now, black_box(remote));
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        // Under valgrind.
        ["run", name, times] => run(name, times),
        // As a test: that it works at all.
        ["--test", ..] => {
            PATHS.iter().for_each(|path| (path.run)(2));
            Ok(())
        }
        ["write"] => measure().and_then(|counts| write(&counts)),
        [] => measure().and_then(|counts| check(&counts)),
        _ => Err("counts [write]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, times: &str) -> Result<(), String> {
    let path = PATHS.iter().find(|path| path.name == name).ok_or("no such path")?;
    (path.run)(times.parse().map_err(|error| format!("{times}: {error}"))?);
    Ok(())
}

/// The instructions of each operation, by name.
type Counts = Vec<(String, f64)>;

fn measure() -> Result<Counts, String> {
    let mut counts = Counts::new();
    for HotPath { name, times, operations, .. } in &PATHS {
        let (once, twice) = (instructions(name, *times)?, instructions(name, 2 * times)?);
        let each = (twice - once) as f64 / (times * operations) as f64;
        counts.push(((*name).to_owned(), each));
    }
    let of = |name: &str| counts.iter().find(|(known, _)| known == name).map(|(_, count)| *count);
    let differences = [
        (READER, "turn-1-to-100", "turn-1-to-200", 100.0),
        (NATIVE_READER, "native-1-to-100", "native-1-to-200", 100.0),
        (LAGGARD, LAG_NOBODY, LAG, 1.0),
    ];
    let differences = differences.map(|(name, less, more, operations)| {
        Some((name.to_owned(), (of(more)? - of(less)?) / operations))
    });
    counts.extend(differences.into_iter().flatten());
    Ok(counts)
}

/// All instructions of a process that does it so often.
fn instructions(name: &str, times: u64) -> Result<i64, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let file = std::env::temp_dir().join(format!("wardline-counts-{}", std::process::id()));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]);
    command.arg(format!("--callgrind-out-file={}", file.display()));
    // Equally many digits, and no environment: the stack begins at the same place.
    command.arg(own).args(["run", name, &format!("{times:010}")]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(|error| {
        format!("cannot start valgrind ({error}); Debian has it: apt-get install valgrind")
    })?;
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let _ = std::fs::remove_file(&file);
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    match total.and_then(|total| total.trim().parse().ok()) {
        Some(total) if status.success() => Ok(total),
        _ => Err(format!("{name} under callgrind: {status}, and no count")),
    }
}

fn counts_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.txt")
}

const HEAD: &str = "\
# Instructions of each operation, as callgrind counts them; see benches/counts.rs. A figure that
# grows by 2 % fails until this is changed on purpose: ./ci.sh counts, then
# cargo bench -p wardline-bench --bench counts -- write
";

fn write(counts: &Counts) -> Result<(), String> {
    let mut text = HEAD.to_owned();
    for (name, count) in counts {
        let _ = writeln!(text, "{name:<22} {count:>10.1}");
    }
    print!("{text}");
    std::fs::write(counts_file(), text).map_err(|error| error.to_string())
}

fn check(counts: &Counts) -> Result<(), String> {
    let file = counts_file();
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let written = parse(&text)?;
    let (mut dearer, mut cheaper) = (Vec::new(), 0);
    println!("{:<22} {:>10} {:>10}", "instructions", "written", "now");
    for (name, now) in counts {
        let before = written.iter().find(|(known, _)| known == name).map(|(_, count)| *count);
        let before = before.ok_or_else(|| format!("{name} is not in {}", file.display()))?;
        let change = now / before - 1.0;
        let word = match change {
            up if up > TOLERANCE => {
                dearer.push(name.as_str());
                "  DEARER"
            }
            down if down < -TOLERANCE => {
                cheaper += 1;
                "  cheaper"
            }
            _ => "",
        };
        println!("{name:<22} {before:>10.1} {now:>10.1} {:>+6.1} %{word}", change * 100.0);
    }
    if cheaper > 0 {
        println!("{cheaper} are cheaper than written: lower them, `-- write`, so that it stays so");
    }
    if dearer.is_empty() {
        return Ok(());
    }
    Err(format!("dearer by more than 2 %: {}; if that is meant, `-- write`", dearer.join(", ")))
}

fn parse(text: &str) -> Result<Counts, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let parsed = lines.map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (name, count) = (words.next()?, words.next()?.parse::<f64>().ok()?);
        (words.next().is_none() && count > 0.0).then(|| (name.to_owned(), count))
    });
    parsed.collect::<Option<_>>().ok_or_else(|| "counts.txt is not understood".to_owned())
}
