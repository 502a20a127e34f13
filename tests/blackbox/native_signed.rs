//! The commands' envelopes, verdicts and presence: what is signed by whom, and what is kept back.

use serde_json::{Value, json};

use crate::commands::fails;
use crate::harness::on_each_engine;
use crate::native::{Stage, ended_well, objects};

#[test]
fn what_is_signed_says_by_whom_and_what_is_not_is_kept_back() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let only = stage.reader("t", &["--signed-only", "--json", "--count", "1"]);
        let all = stage.reader("t", &["--json", "--count", "2"]);
        // Somebody has to read it for the topic to stay.
        let _stays = stage.reader("t", &[]);
        stage.good(&["pub", "t", "plain"]);
        stage.good(&["pub", "t", "signed", "--sign"]);
        let whose = stage.home.run(&["keygen", "--show"]).stdout;
        let (only, all) = (only.outcome(), all.outcome());
        let (only, all) = (objects(ended_well(&only)), objects(ended_well(&all)));
        // The first of each is where the subscription begins.
        assert_eq!(only[1]["untrusted"]["why"], "it is not signed");
        assert_eq!((&only[2]["payload"], only.len()), (&json!("signed"), 3));
        assert_eq!((&all[1]["payload"], &all[1]["signed"]), (&json!("plain"), &Value::Null));
        for message in [&only[2], &all[2]] {
            assert_eq!(message["signed"]["identity"], whose.trim());
            assert_eq!((&message["envelope"], &message["history"]), (&json!(true), &json!(false)));
            assert_eq!(message["payload"], "signed");
        }
        // Later it is history; and as lines, what is kept back is said beside them.
        let later = stage.good(&["sub", "t", "--from", "last:1", "--json", "--count", "1"]);
        assert_eq!(objects(&later)[1]["history"], true);
        let lines = ["sub", "t", "--from", "last:2", "--signed-only", "--count", "1"];
        let lines = stage.run(&lines);
        assert_eq!(ended_well(&lines), "signed\n");
        assert!(lines.stderr.contains("is kept back: it is not signed"), "{lines:?}");
    });
}

#[test]
fn who_asks_and_who_answers_sign() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let (bot, _) = stage.home.key("bot.key");
        let show = "cat; echo; echo $WARDLINE_SIGNED $WARDLINE_IDENTITY";
        let reply = ["reply", "--key", &bot, "--sign", "--signed-only", "--", "sh", "-c", show];
        let (_replier, who) = stage.replier(&reply);
        let signed = stage.good(&["req", &who, "hello", "--sign", "--signed-only"]);
        let whose = stage.home.run(&["keygen", "--show"]).stdout;
        let whose = whose.trim();
        assert_eq!(signed, format!("hello\n1 {whose}\n"));
        let object = objects(&stage.good(&["req", &who, "hello", "--sign", "--json"]));
        assert_eq!(object[0]["signed"]["identity"], who);
        // Unsigned, it is not answered.
        let unsigned = stage.run(&["req", &who, "hello", "--timeout", "500ms"]);
        fails(&unsigned, 124, &[]);
        // And an answer that is not signed is none.
        let (other, _) = stage.home.key("other.key");
        let (_replier, who) = stage.replier(&["reply", "--key", &other, "--", "cat"]);
        let plain = stage.run(&["req", &who, "hello", "--signed-only"]);
        fails(&plain, 1, &["not to be trusted: it is not signed"]);
        assert_eq!(stage.good(&["req", &who, "hello", "--sign"]), "hello\n");
    });
}

#[test]
fn verdicts_and_presence() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let watches = stage.reader("t", &["--presence", "--json", "--count", "2"]);
        assert_eq!(stage.good(&["pub", "t", "x", "--verdict"]), "message 0: 1 reader\n");
        let also = stage.reader("t", &["--count", "1"]);
        let said = objects(&stage.good(&["pub", "t", "y", "--verdict", "--json"]));
        assert_eq!(said[0], json!({ "topic": "t", "offset": 1, "readers": 2 }));
        assert_eq!(said[1], json!({ "topic": "t", "taken": 1 }));
        assert_eq!(ended_well(&also.outcome()), "y\n");
        let told = objects(ended_well(&watches.outcome()));
        let joined = told.iter().find_map(|object| object["joined"]["handle"].as_str());
        assert_eq!(joined.map(str::len), Some(16), "{told:?}");
    });
}
