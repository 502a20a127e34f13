//! Lengths that keep the code readable: lines, functions, files, over the whole workspace.

use std::fs;
use std::path::{Path, PathBuf};

const LINE_COLUMNS: usize = 100;
const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 800;

/// Every Rust source of the workspace; build output is passed over.
fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut folders = vec![root.to_owned()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                sources.push(path);
            }
        }
    }
    sources
}

/// The functions of a formatted source: first line (from 1) and number of lines. rustfmt sees to
/// it that the brace that ends one stands at the indent of the line that began it.
fn functions(source: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let begins = |line: &str| {
        let line = line.trim_start();
        let words = line.split_once("fn ").map(|(before, _)| before);
        words.is_some_and(|before| {
            before.split_whitespace().all(|word| {
                matches!(word, "pub" | "const" | "unsafe" | "async" | "extern")
                    || word.starts_with("pub(")
                    || word.starts_with('"')
            })
        })
    };
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate().filter(|(_, line)| begins(line)) {
        let end = lines.iter().enumerate().skip(first).find(|(at, other)| {
            let whole = *at == first && other.trim_end().ends_with(['}', ';']);
            let last = *at > first && indent(other) == indent(line) && other.trim_start() == "}";
            let declared = indent(other) == indent(line) && other.trim_end().ends_with(';');
            whole || last || declared
        });
        if let Some((last, _)) = end {
            found.push((first + 1, last - first + 1));
        }
    }
    found
}

#[test]
fn lines_functions_and_files_are_short() {
    let sources = sources();
    assert!(sources.len() > 30, "only {} sources were found", sources.len());
    let mut wrong = Vec::new();
    let mut counted = 0;
    for path in sources {
        let source = fs::read_to_string(&path).expect("UTF-8");
        let name = path.display();
        let lines = source.lines().count();
        if lines > FILE_LINES {
            wrong.push(format!("{name}: {lines} lines"));
        }
        for (at, line) in source.lines().enumerate() {
            // A string that cannot be broken may stand out.
            if line.chars().count() > LINE_COLUMNS && !line.trim_start().starts_with('"') {
                wrong.push(format!("{name}:{}: {} columns", at + 1, line.chars().count()));
            }
        }
        for (first, lines) in functions(&source) {
            counted += 1;
            if lines > FUNCTION_LINES {
                wrong.push(format!("{name}:{first}: a function of {lines} lines"));
            }
        }
    }
    assert!(counted > 200, "only {counted} functions were seen");
    assert!(wrong.is_empty(), "too long:\n{}", wrong.join("\n"));
}

#[test]
fn a_long_function_is_seen() {
    let body = "        x();\n".repeat(80);
    let source =
        format!("impl A {{\n    pub(crate) fn f(\n        a: u8,\n    ) {{\n{body}    }}\n}}\n");
    assert_eq!(functions(&source), [(2, 84)]);
    assert_eq!(functions("fn a() {}\nconst fn b();\npub fn c() {\n    d();\n}\n").len(), 3);
}
