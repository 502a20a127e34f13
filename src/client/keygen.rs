//! `wardline keygen`: a key of one's own.

use std::path::Path;

use wardline_host::keys::{self, CLIENT_KEY, KeyError};

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
    let failed = |error: KeyError| Failure::Runtime(error.to_string());
    let key = match args.show {
        true => keys::read(&path).map_err(failed)?,
        false => {
            let key = keys::make(&path).map_err(failed)?;
            tell(&path);
            key
        }
    };
    print(format!("{}\n", keys::hex(&key.identity())).as_bytes())
}

fn tell(path: &Path) {
    let path = path.display();
    eprintln!("wardline: made {path}; what is in it is secret, and this is who it makes you:");
}
