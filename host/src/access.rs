//! Who may do what: the file of keys that an operator writes, and what goes without it.
//!
//! One key a line, `HEX [rights]  # comment`. Rights are `publish`, `subscribe` and `who`, each
//! alone or with the topics that it is for (`publish=a/*,b`), and `request` and `bridge`. A key
//! without rights has all of them but `bridge`.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};

use serde_json::Value;
use wardline_core::native::{Identity, IdentityFault, is_topic_name};
use wardline_core::{Access, Right};

use crate::settings::{NativeSettings, Setting, read_word};

/// Who may connect that does not stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Who comes from this machine.
    Loopback,
    /// Everybody.
    Always,
    /// Nobody.
    Never,
}

impl Setting for Open {
    fn read(value: &Value) -> Result<Self, String> {
        let words =
            [("loopback", Self::Loopback), ("always", Self::Always), ("never", Self::Never)];
        read_word(value, &words)
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(match self {
            Self::Loopback => "loopback",
            Self::Always => "always",
            Self::Never => "never",
        }))
    }
}

/// Topics that a right is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Topics {
    None,
    All,
    Some(Vec<Pattern>),
}

/// A topic, or all that begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    name: String,
    is_prefix: bool,
}

impl Topics {
    fn has(&self, topic: &[u8]) -> bool {
        let matches = |pattern: &Pattern| match pattern.is_prefix {
            true => topic.starts_with(pattern.name.as_bytes()),
            false => topic == pattern.name.as_bytes(),
        };
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(patterns) => patterns.iter().any(matches),
        }
    }
}

/// What one identity may do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rights {
    publish: Topics,
    subscribe: Topics,
    who: Topics,
    request: bool,
    bridge: bool,
}

impl Rights {
    const NONE: Self = Self {
        publish: Topics::None,
        subscribe: Topics::None,
        who: Topics::None,
        request: false,
        bridge: false,
    };

    /// Of a key without rights of its own, and of those that stand in no file.
    const USUAL: Self = Self {
        publish: Topics::All,
        subscribe: Topics::All,
        who: Topics::All,
        request: true,
        bridge: false,
    };

    fn allow(&self, right: Right, topic: &[u8]) -> bool {
        match right {
            Right::Connect => true,
            Right::Publish => self.publish.has(topic),
            Right::Subscribe => self.subscribe.has(topic),
            Right::Who => self.who.has(topic),
            Right::Request => self.request,
            Right::Bridge => self.bridge,
        }
    }
}

/// What a file of keys says, and who may come that does not stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    open: Open,
    keys: HashMap<Identity, Rights>,
}

impl Rules {
    /// Those of the settings; reads the file that they name.
    ///
    /// # Errors
    /// The operator's: the first thing that is wrong with the file. Then nobody is let in by it.
    pub fn from_settings(settings: &NativeSettings) -> Result<Self, RulesError> {
        let keys = match &settings.authorized_keys {
            Some(path) => read(path)?,
            None => HashMap::new(),
        };
        Ok(Self { open: settings.open, keys })
    }

    /// How many keys stand in the file.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Whether nobody at all could connect.
    #[must_use]
    pub fn let_nobody_in(&self) -> bool {
        self.open == Open::Never && self.keys.is_empty()
    }

    /// Whether nobody could connect but who comes from this machine.
    #[must_use]
    pub fn let_only_home_in(&self) -> bool {
        self.open == Open::Loopback && self.keys.is_empty()
    }

    fn may(&self, who: &Identity, from: IpAddr, right: Right, topic: &[u8]) -> bool {
        // Who stands in the file has what stands there, wherever it comes from.
        if let Some(rights) = self.keys.get(who) {
            return rights.allow(right, topic);
        }
        let open = match self.open {
            Open::Loopback => from.to_canonical().is_loopback(),
            Open::Always => true,
            Open::Never => false,
        };
        open && Rights::USUAL.allow(right, topic)
    }
}

/// The rules in force, for all shards. A reload puts others in their place.
#[derive(Debug)]
pub struct Keyring {
    rules: RwLock<Rules>,
    /// Counts the rules, from 1.
    version: AtomicU32,
}

impl Keyring {
    /// Begins with these.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules: RwLock::new(rules), version: AtomicU32::new(1) }
    }

    /// Puts others in their place, whole; and whether they say anything else.
    pub fn replace(&self, rules: Rules) -> bool {
        // Rules are replaced whole or not at all: a panic elsewhere cannot have spoilt them.
        let old = {
            let mut now = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *now, rules)
        };
        // After 2^32 of them it is 0, which the relay takes for 1.
        self.version.fetch_add(1, Ordering::Release);
        *self.rules.read().unwrap_or_else(PoisonError::into_inner) != old
    }
}

impl Access for Keyring {
    fn may(&self, who: &Identity, from: IpAddr, right: Right, topic: &[u8]) -> bool {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.may(who, from, right, topic)
    }

    fn enrolled(&self, who: &Identity) -> bool {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.keys.contains_key(who)
    }

    fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }
}

/// A file of keys that cannot be used.
#[derive(Debug)]
pub struct RulesError {
    file: PathBuf,
    /// From 1; `None` where the file cannot be read at all.
    place: Option<(usize, usize)>,
    what: String,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for RulesError {}

/// What is wrong with a line, and at which of its bytes.
type Wrong = (usize, String);

fn read(path: &Path) -> Result<HashMap<Identity, Rights>, RulesError> {
    let failed = |place, what| RulesError { file: path.to_owned(), place, what };
    let text = std::fs::read_to_string(path)
        .map_err(|error| failed(None, format!("cannot read it: {error}")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut keys = HashMap::new();
    let mut lines: HashMap<Identity, usize> = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |(at, what): Wrong| {
            let before = line.get(..at).unwrap_or(line);
            failed(Some((number, before.chars().count() + 1)), what)
        };
        let Some((at, identity, rights)) = parse_line(line).map_err(wrong)? else { continue };
        if let Some(first) = lines.insert(identity, number) {
            return Err(wrong((at, format!("this key stands on line {first} already"))));
        }
        keys.insert(identity, rights);
    }
    if keys.is_empty() {
        let what = "holds no key; it is a key a line: 64 hexadecimal digits, rights, # a comment";
        return Err(failed(Some((1, 1)), what.to_owned()));
    }
    Ok(keys)
}

/// The key of a line and where it stands; `None` of a line that is empty or a comment.
fn parse_line(line: &str) -> Result<Option<(usize, Identity, Rights)>, Wrong> {
    // No topic's name has this sign.
    let said = line.split_once('#').map_or(line, |(said, _)| said);
    let mut words = words(said);
    let Some((at, key)) = words.next() else { return Ok(None) };
    let identity: Identity = key.parse().map_err(|fault: IdentityFault| (at, fault.to_string()))?;
    let mut rights = Rights::NONE;
    let mut named = false;
    for (at, word) in words {
        named = true;
        add_right(&mut rights, at, word)?;
    }
    Ok(Some((at, identity, if named { rights } else { Rights::USUAL })))
}

fn add_right(rights: &mut Rights, at: usize, word: &str) -> Result<(), Wrong> {
    let (name, topics) = match word.split_once('=') {
        Some((name, topics)) => (name, Some((at + name.len() + 1, topics))),
        None => (word, None),
    };
    let place = match name {
        "publish" => &mut rights.publish,
        "subscribe" => &mut rights.subscribe,
        "who" => &mut rights.who,
        "request" | "bridge" => {
            if topics.is_some() {
                return Err((at, format!("{name} is for no topic: it stands alone")));
            }
            let place = if name == "request" { &mut rights.request } else { &mut rights.bridge };
            return if std::mem::replace(place, true) { Err(twice(at, name)) } else { Ok(()) };
        }
        _ => {
            let known = "publish, subscribe, who, request or bridge";
            return Err((at, format!("must be {known}, not {name:?}")));
        }
    };
    if *place != Topics::None {
        return Err(twice(at, name));
    }
    *place = match topics {
        None => Topics::All,
        Some((at, topics)) => parse_topics(at, topics)?,
    };
    Ok(())
}

fn twice(at: usize, name: &str) -> Wrong {
    (at, format!("{name} stands there twice; topics are parted by commas"))
}

fn parse_topics(at: usize, list: &str) -> Result<Topics, Wrong> {
    let mut patterns = Vec::new();
    let mut at = at;
    for topic in list.split(',') {
        let (name, is_prefix) = match topic.strip_suffix('*') {
            Some("") => return if list == "*" { Ok(Topics::All) } else { Err(alone(at)) },
            Some(name) => (name, true),
            None => (topic, false),
        };
        if !is_topic_name(name) {
            let what = "must be a topic, a beginning of topics and *, or * for all";
            return Err((at, format!("{what}, not {topic:?}")));
        }
        patterns.push(Pattern { name: name.to_owned(), is_prefix });
        at += topic.len() + 1;
    }
    Ok(Topics::Some(patterns))
}

fn alone(at: usize) -> Wrong {
    (at, "* is all topics: it stands alone".to_owned())
}

/// The words of a text and where each begins.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let begins = move |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split_whitespace().map(move |word| (begins(word), word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use wardline_core::native::SigningKey;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn identity(n: u8) -> Identity {
        SigningKey::from_seed(&[n; 32]).identity()
    }

    fn hex(n: u8) -> String {
        identity(n).to_string()
    }

    fn far() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    fn rules(open: Open, text: &str) -> Result<Rules, RulesError> {
        let dir = Scratch::new();
        let authorized_keys = Some(dir.file("keys", text));
        Rules::from_settings(&NativeSettings { authorized_keys, open, ..Default::default() })
    }

    /// What `n` may do from far away, of each right and these topics.
    fn allowed(rules: &Rules, n: u8) -> Vec<(Right, &'static str)> {
        let mut all = Vec::new();
        for right in [Right::Publish, Right::Subscribe, Right::Who] {
            all.extend(["a", "a/", "a/b", "ab", "b"].map(|topic| (right, topic)));
        }
        all.extend([Right::Connect, Right::Request, Right::Bridge].map(|right| (right, "")));
        all.retain(|(right, topic)| rules.may(&identity(n), far(), *right, topic.as_bytes()));
        all
    }

    #[test]
    fn a_line_says_what_its_key_may() {
        let text = format!(
            "# ours\n\n{} publish=a/*,b subscribe request # one\n  ed25519:{}\n{} who=a bridge\n{} \
             publish=*\n",
            hex(1),
            hex(2).to_uppercase(),
            hex(3),
            hex(4)
        );
        let rules = rules(Open::Never, &text).unwrap();
        assert_eq!(rules.keys(), 4);
        use Right::{Bridge, Connect, Publish, Request, Subscribe, Who};
        let every = |right| ["a", "a/", "a/b", "ab", "b"].map(|topic| (right, topic));
        let publish = [(Publish, "a/"), (Publish, "a/b"), (Publish, "b")];
        let one = [&publish[..], &every(Subscribe), &[(Connect, ""), (Request, "")]].concat();
        assert_eq!(allowed(&rules, 1), one);
        let usual = [every(Publish), every(Subscribe), every(Who)].concat();
        let usual = [&usual[..], &[(Connect, ""), (Request, "")]].concat();
        assert_eq!(allowed(&rules, 2), usual);
        assert_eq!(allowed(&rules, 3), [(Who, "a"), (Connect, ""), (Bridge, "")]);
        assert_eq!(allowed(&rules, 4), [&every(Publish)[..], &[(Connect, "")]].concat());
        assert_eq!(allowed(&rules, 5), []);
    }

    #[test]
    fn who_stands_in_no_file_comes_from_where_it_is_open() {
        let text = format!("{} subscribe=a", hex(1));
        let mapped = "::ffff:127.0.0.1".parse().unwrap();
        for (open, from_home, from_far) in
            [(Open::Loopback, true, false), (Open::Always, true, true), (Open::Never, false, false)]
        {
            for rules in [rules(open, &text).unwrap(), Rules { open, keys: HashMap::new() }] {
                for (from, may) in [(HOME, from_home), (mapped, from_home), (far(), from_far)] {
                    for right in [Right::Connect, Right::Publish, Right::Request, Right::Who] {
                        assert_eq!(rules.may(&identity(2), from, right, b"x"), may, "{from}");
                    }
                    assert!(!rules.may(&identity(2), from, Right::Bridge, b""));
                }
            }
            // A key of the file has no more at home than elsewhere.
            assert!(!rules(open, &text).unwrap().may(&identity(1), HOME, Right::Publish, b"a"));
        }
        assert!(Rules { open: Open::Never, keys: HashMap::new() }.let_nobody_in());
    }

    #[test]
    fn a_wrong_file_says_where_and_lets_nobody_in() {
        let key = hex(1);
        let cases = [
            (String::new(), "1:1: holds no key"),
            ("# none\n\n".to_owned(), "1:1: holds no key"),
            ("abc\n".to_owned(), "1:1: must be a key: 64 hexadecimal digits"),
            (format!("\n  {}0\n", key), "2:3: must be a key"),
            (format!("01{}\n", "0".repeat(62)), "1:1: is not a key: the key is of small order"),
            (format!("{key}\n# é\n{key} who\n"), "3:1: this key stands on line 1 already"),
            (format!("{key} publsh=a"), "1:66: must be publish, subscribe, who, request or bridge"),
            (format!("{key} publish=a,"), "1:76: must be a topic, a beginning"),
            (format!("{key} publish=é,b*c"), "1:76: must be a topic, a beginning"),
            (format!("{key} publish="), "1:74: must be a topic"),
            (format!("{key} publish=$sys"), "1:74: must be a topic"),
            (format!("{key} publish=a,*"), "1:76: * is all topics: it stands alone"),
            (format!("{key} publish=a publish=b"), "1:76: publish stands there twice"),
            (format!("{key} request request"), "1:74: request stands there twice"),
            (format!("{key} request=a"), "1:66: request is for no topic"),
        ];
        for (text, says) in cases {
            let wrong = rules(Open::Always, &text).unwrap_err().to_string();
            assert!(wrong.contains(&format!("/keys:{says}")), "{text}: {wrong}");
        }
        let settings =
            NativeSettings { authorized_keys: Some("/none".into()), ..Default::default() };
        let wrong = Rules::from_settings(&settings).unwrap_err().to_string();
        assert!(wrong.starts_with("/none: cannot read it: "), "{wrong}");
    }

    #[test]
    fn a_keyring_takes_others_in_their_place() {
        let ring = Keyring::new(rules(Open::Never, &hex(1)).unwrap());
        let may = |n| ring.may(&identity(n), far(), Right::Connect, b"");
        assert_eq!((may(1), may(2)), (true, false));
        assert!(ring.replace(rules(Open::Never, &hex(2)).unwrap()));
        assert!(!ring.replace(rules(Open::Never, &hex(2)).unwrap()));
        assert_eq!((may(1), may(2)), (false, true));
    }
}
