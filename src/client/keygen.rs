//! `wardline keygen`: a key of one's own.

use std::path::Path;

use serde_json::json;
use wardline_client::keys::{self, KeyFileError};
use wardline_client::state::CLIENT_KEY;

use super::args::KeygenArgs;
use super::connect::in_state;
use crate::exit::Failure;
use crate::show::print;

/// Makes a key, never over another one; prints whose it is.
pub(crate) fn keygen(args: &KeygenArgs) -> Result<(), Failure> {
    let path = match &args.file {
        Some(path) => path.clone(),
        None => in_state(CLIENT_KEY, "a path")?,
    };
    let failed = |error: KeyFileError| Failure::Runtime(error.to_string());
    let key = match args.show {
        true => keys::load(&path).map_err(failed)?,
        false => {
            let key = keys::generate(&path).map_err(failed)?;
            tell(&path, args.json);
            key
        }
    };
    let identity = key.identity().to_string();
    let said = match args.json {
        true => json!({ "identity": identity, "file": path.to_string_lossy() }).to_string(),
        false => identity,
    };
    print(format!("{said}\n").as_bytes())
}

fn tell(path: &Path, json: bool) {
    let path = path.display();
    let whose = if json { "" } else { ", and this is who it makes you:" };
    eprintln!("wardline: made {path}; what is in it is secret{whose}");
}
