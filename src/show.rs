//! `wardline check` and `wardline plan`: what the settings mean, without serving.

use std::io::{self, Write};

use wardline_host::plan::Plan;

use crate::cli::{PlanArgs, SettingArgs};
use crate::exit::Failure;

/// Prints every setting in force and where it came from.
pub(crate) fn check(args: &SettingArgs) -> Result<(), Failure> {
    let loaded = args.sources().load()?;
    let mut report = loaded.report();
    for name in &loaded.without_meaning {
        report.push_str(&format!("# without meaning here: {name}\n"));
    }
    print(report.as_bytes())
}

/// Prints the memory that the settings reserve.
pub(crate) fn plan(args: &PlanArgs) -> Result<(), Failure> {
    let plan = Plan::of(&args.settings.sources().load()?);
    let words = if args.json { format!("{:#}\n", plan.json()) } else { plan.to_string() };
    print(words.as_bytes())
}

/// Prints to standard output. Who reads only the beginning, as `head` does, has what it wants.
pub(crate) fn print(words: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(words).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Runtime(format!("cannot write: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
