//! What an operator may have meant.

use strsim::damerau_levenshtein;

/// The name that is nearest to `wanted` by edit distance, or has the same last part; `None` where
/// none is near.
pub(super) fn nearest<'n>(
    wanted: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    let leaf = |name: &str| name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let (lower, wanted_leaf) = (wanted.to_ascii_lowercase(), leaf(wanted));
    let distance = |name: &str| {
        if leaf(name) == wanted_leaf { 1 } else { damerau_levenshtein(&lower, name) }
    };
    let near = names.into_iter().map(|name| (distance(name), name)).min_by_key(|(by, _)| *by)?;
    // A third of the letters may be wrong; more is another word.
    (near.0 <= wanted.len().div_ceil(3)).then_some(near.1)
}

/// `unknown key; did you mean NEAREST?`
pub(super) fn unknown<'n>(
    what: &str,
    wanted: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> String {
    match nearest(wanted, names) {
        Some(name) => format!("unknown {what}; did you mean {name}?"),
        None => format!("unknown {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["line.max_bytes", "line.max_out_bytes", "log.level", "log.keys"];

    #[test]
    fn the_nearest_is_found() {
        let cases = [
            ("line.max_byte", Some("line.max_bytes")),
            ("line.max_otu_bytes", Some("line.max_out_bytes")),
            ("lime.max_bytes", Some("line.max_bytes")),
            ("LOG.LEVEL", Some("log.level")),
            ("server.level", Some("log.level")),
            ("level", Some("log.level")),
            ("zebra.crossing", None),
            ("", None),
        ];
        for (wanted, found) in cases {
            assert_eq!(nearest(wanted, NAMES), found, "{wanted}");
        }
        assert_eq!(nearest("x", []), None);
        assert_eq!(unknown("key", "log.kays", NAMES), "unknown key; did you mean log.keys?");
        assert_eq!(unknown("key", "zebra", NAMES), "unknown key");
    }
}
