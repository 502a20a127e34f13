//! `wardline check`, `plan` and `engines`: what the settings mean, without serving.

use std::io::{self, Write};

use wardline_host::plan::Plan;

use crate::cli::{EnginesArgs, PlanArgs, SettingArgs};
use crate::engine;
use crate::exit::Failure;
use crate::native;

/// Prints every setting in force and where it came from.
pub(crate) fn check(args: &SettingArgs) -> Result<(), Failure> {
    let loaded = args.sources().load()?;
    engine::built(loaded.settings.server.engine)?;
    native::check(&loaded.settings.native)?;
    let mut report = loaded.report();
    for name in &loaded.without_meaning {
        report.push_str(&format!("# without meaning here: {name}\n"));
    }
    print(report.as_bytes())
}

/// Prints the memory that the settings reserve.
pub(crate) fn plan(args: &PlanArgs) -> Result<(), Failure> {
    let loaded = args.settings.sources().load()?;
    let wanted = loaded.settings.server.engine;
    engine::built(wanted)?;
    let (engine, memory) = engine::memory(wanted, &loaded.limits);
    let plan = Plan::of(&loaded, engine, memory);
    let words = if args.json { format!("{:#}\n", plan.json()) } else { plan.to_string() };
    print(words.as_bytes())
}

/// Prints which engines can run here.
pub(crate) fn engines(args: &EnginesArgs) -> Result<(), Failure> {
    print(engine::list(args.json).as_bytes())
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
