//! Each syntax, line by line.

use super::*;

/// The rules of `text` in short, and the report.
fn rules(text: &[u8], syntax: Syntax) -> (Vec<String>, Report) {
    let mut rules = Vec::new();
    let report = read(text, syntax, &mut |rule: &Rule<'_>| {
        let owner = match rule.owner {
            Owner::Name(name) => name.to_string(),
            Owner::Addresses(net) => net.to_string(),
        };
        let mut line = format!("{:?} {owner} {:?}", rule.verb, rule.reach);
        if rule.is_important {
            line.push_str(" important");
        }
        match rule.trigger {
            Trigger::Qname => {}
            Trigger::Nsdname => line.push_str(" nsdname"),
            Trigger::Client => line.push_str(" client"),
        }
        for (is_so, mark) in [(rule.is_rewrite, " rewrite"), (rule.cancels, " cancels")] {
            line.push_str(if is_so { mark } else { "" });
        }
        for name in rule.except {
            line.push_str(&format!(" !{}", name.as_name()));
        }
        if !rule.types.is_all() {
            line.push_str(&format!(" {:?}-{:?}", rule.types.only, rule.types.except));
        }
        if !rule.clients.is_all() {
            line.push_str(&format!(" {:?}-{:?}", rule.clients.only, rule.clients.except));
        }
        if let Some(record) = rule.record {
            let (rtype, ttl) = (record.rtype.0, record.ttl);
            line.push_str(&format!(" {rtype} {ttl} {}", record.rdata.escape_ascii()));
        }
        rules.push(line);
        true
    });
    assert_eq!(report.rules, rules.len() as u64);
    (rules, report)
}

/// What one line gives: its rules, and its findings.
fn one(line: &str, syntax: Syntax) -> (Vec<String>, Vec<Finding>) {
    let (rules, report) = rules(line.as_bytes(), syntax);
    let findings = report.bad.first.iter().chain(&report.skipped.first);
    (rules, findings.map(|remark| remark.finding).collect())
}

#[track_caller]
fn gives(line: &str, syntax: Syntax, expected: &[&str]) {
    assert_eq!(one(line, syntax), (expected.iter().map(|&rule| rule.into()).collect(), vec![]));
}

#[track_caller]
fn finds(line: &str, syntax: Syntax, finding: Finding) {
    assert_eq!(one(line, syntax), (vec![], vec![finding]), "{line}");
}

#[test]
fn hosts_lines_block_or_give_an_address() {
    for address in ["0.0.0.0", "127.0.0.1", "::", "::1", "fe80::1%lo0"] {
        let line = format!("{address}\tAds.example  x.example # both");
        let verb = if address.starts_with('f') { "Local" } else { "Block" };
        let (rules, findings) = one(&line, Syntax::Hosts);
        assert_eq!(rules.len(), 2, "{line}");
        assert!(rules[0].starts_with(&format!("{verb} ads.example. Exact")), "{rules:?}");
        assert_eq!(findings, []);
    }
    gives("192.0.2.1 nas.home", Syntax::Hosts, &[r"Local nas.home. Exact 1 10 \xc0\x00\x02\x01"]);
    gives("# 0.0.0.0 x.example", Syntax::Hosts, &[]);
    finds("0.0.0.0", Syntax::Hosts, Finding::Incomplete);
    finds("ads.example", Syntax::Hosts, Finding::Address);
    finds("127.0.0.1 localhost", Syntax::Hosts, Finding::OwnName);
    finds("0.0.0.0 0.0.0.0", Syntax::Hosts, Finding::OwnName);
    let (rules, findings) = one("0.0.0.0 good.example b..ad fine.example", Syntax::Hosts);
    assert_eq!((rules.len(), findings), (2, vec![Finding::Name]));
}

#[test]
fn plain_names_are_exact_and_wildcards_cover_the_name_too() {
    gives("Ads.example", Syntax::Domains, &["Block ads.example. Exact"]);
    gives("ads.example. # why", Syntax::Domains, &["Block ads.example. Exact"]);
    gives("*.ads.example", Syntax::Domains, &["Block ads.example. AtAndBelow"]);
    gives(".ads.example", Syntax::Domains, &["Block ads.example. AtAndBelow"]);
    gives("bücher.example", Syntax::Domains, &["Block xn--bcher-kva.example. Exact"]);
    for comment in ["# x", "! x", "; x", "", "   "] {
        gives(comment, Syntax::Domains, &[]);
    }
    finds("ads.*.example", Syntax::Domains, Finding::Pattern);
    finds("192.0.2.1", Syntax::Domains, Finding::Name);
    finds("two words", Syntax::Domains, Finding::Name);
}

#[test]
fn adblock_anchors_say_what_is_reached() {
    let adblock = Syntax::Adblock;
    gives("||Ads.example^", adblock, &["Block ads.example. AtAndBelow"]);
    gives("||ads.example^|", adblock, &["Block ads.example. AtAndBelow"]);
    gives("@@||ads.example^", adblock, &["Allow ads.example. AtAndBelow"]);
    gives("@@|ads.example^", adblock, &["Allow ads.example. Exact"]);
    gives("|ads.example|", adblock, &["Block ads.example. Exact"]);
    gives("||*.ads.example^", adblock, &["Block ads.example. Below"]);
    gives("*.ads.example", adblock, &["Block ads.example. Below"]);
    gives("||192.0.2.1^", adblock, &["Block 192.0.2.1/32 AtAndBelow"]);
    gives("||ads.example/*", adblock, &["Block ads.example. AtAndBelow"]);
    gives("ads.example^", adblock, &["Block ads.example. AtAndBelow"]);
    gives("@@ads.example^", adblock, &["Allow ads.example. AtAndBelow"]);
    gives(".ads.example^", adblock, &["Block ads.example. Below"]);
    gives("||zip^", adblock, &["Block zip. AtAndBelow"]);
    gives("ads.example", adblock, &["Block ads.example. Exact"]);
    gives("0.0.0.0 ads.example", adblock, &["Block ads.example. Exact"]);
    for comment in ["! x", "# x", "#", "[Adblock Plus 2.0]"] {
        gives(comment, adblock, &[]);
    }
}

#[test]
fn adblock_modifiers_narrow_a_rule_or_set_it_aside() {
    let adblock = Syntax::Adblock;
    gives("||x.example^$important", adblock, &["Block x.example. AtAndBelow important"]);
    gives("@@||x.example^$important", adblock, &["Allow x.example. AtAndBelow important"]);
    gives(
        "||x.example^$dnstype=A|aaaa,important",
        adblock,
        &["Block x.example. AtAndBelow important [Rtype(1), Rtype(28)]-[]"],
    );
    gives("||x.example^$dnstype=~TYPE65", adblock, &["Block x.example. AtAndBelow []-[Rtype(65)]"]);
    gives(
        r"||x.example^$client=10.0.0.9/8|::1|~'Bo\'s tv'",
        adblock,
        &[concat!(
            "Block x.example. AtAndBelow ",
            r#"[At(10.0.0.0/8), At(::1/128)]-[Named("Bo's tv")]"#
        )],
    );
    finds("||x.example^$third-party", adblock, Finding::Modifier);
    gives("||x.example^$badfilter", adblock, &["Block x.example. AtAndBelow cancels"]);
    gives(
        "||example^$denyallow=a.example|B.example",
        adblock,
        &["Block example. AtAndBelow !a.example. !b.example."],
    );
    gives("*$denyallow=com|net", adblock, &["Block . AtAndBelow !com. !net."]);
    finds("*", adblock, Finding::Pattern);
    finds("*$important", adblock, Finding::Pattern);
    finds("||x.example^$denyallow=", adblock, Finding::Name);
    finds("||x.example^$dnstype=WHAT", adblock, Finding::Value);
    finds("||x.example^$client=", adblock, Finding::Value);
    // Nothing of one line stays for the next.
    let text = b"||a.example^$important,dnstype=A,client=::1\n||b.example^";
    assert_eq!(rules(text, adblock).0[1], "Block b.example. AtAndBelow");
}

#[test]
fn rewrites_answer_in_short_or_in_full() {
    let gives = |value: &str, expected: &str| {
        let line = format!("|x.example^$dnsrewrite={value}");
        gives(&line, Syntax::Adblock, &[expected]);
    };
    gives("192.0.2.1", r"Local x.example. Exact rewrite 1 10 \xc0\x00\x02\x01");
    gives("NOERROR;A;192.0.2.1", r"Local x.example. Exact rewrite 1 10 \xc0\x00\x02\x01");
    gives("Y.example", r"Local x.example. Exact rewrite 5 10 \x01y\x07example\x00");
    gives("NOERROR;CNAME;y.example", r"Local x.example. Exact rewrite 5 10 \x01y\x07example\x00");
    gives("NXDOMAIN", "Nxdomain x.example. Exact rewrite");
    gives("NXDOMAIN;;", "Nxdomain x.example. Exact rewrite");
    gives("NOERROR", "Nodata x.example. Exact rewrite");
    gives("NOERROR;;", "Nodata x.example. Exact rewrite");
    gives("NOERROR;TXT;a b", r"Local x.example. Exact rewrite 16 10 \x03a b");
    gives(
        "NOERROR;MX;5 m.example",
        r"Local x.example. Exact rewrite 15 10 \x00\x05\x01m\x07example\x00",
    );
    gives("NOERROR;PTR;m.example.", r"Local x.example. Exact rewrite 12 10 \x01m\x07example\x00");
    gives(
        "NOERROR;SRV;1 2 3 m.example",
        r"Local x.example. Exact rewrite 33 10 \x00\x01\x00\x02\x00\x03\x01m\x07example\x00",
    );
    let finds = |line: &str, finding| finds(line, Syntax::Adblock, finding);
    for (value, finding) in [
        ("REFUSED", Finding::NotOffered),
        ("SERVFAIL;;", Finding::NotOffered),
        ("NOERROR;HTTPS;1 .", Finding::NotOffered),
        ("WHAT", Finding::Value),
        ("NOERROR;A", Finding::Value),
        ("NOERROR;A;::1", Finding::Address),
        ("NOERROR;AAAA;x", Finding::Address),
        ("NOERROR;MX;m.example", Finding::Value),
        ("NOERROR;SRV;1 2 m.example", Finding::Value),
        ("a..b", Finding::Name),
    ] {
        finds(&format!("||x.example^$dnsrewrite={value}"), finding);
    }
    finds("||x.example^$dnsrewrite", Finding::Value);
    finds("@@||x.example^$dnsrewrite=192.0.2.1", Finding::Modifier);
    self::gives(
        "@@||x.example^$dnsrewrite",
        Syntax::Adblock,
        &["Allow x.example. AtAndBelow rewrite"],
    );
}

#[test]
fn adblock_rules_that_names_cannot_follow_are_skipped() {
    let adblock = Syntax::Adblock;
    for line in
        ["x.example##.ad", "x.example#@#.ad", "##.ad", "x.example#?#div", "x.example$$script"]
    {
        finds(line, adblock, Finding::Cosmetic);
    }
    for line in [
        "||ads.*.example^",
        "||ads",
        "||x.example/path^",
        "/ads[0-9]+/",
        "-banner-*",
        "://ads.example^",
        "@@ads.example",
        "ads.example$important",
        "ads^",
        "/ads^",
        r"/^ads\d+\.example$/",
        r"@@/^ads\d+\.example$/",
        "|https://x.example^",
    ] {
        finds(line, adblock, Finding::Pattern);
    }
    finds("||a..b^", adblock, Finding::Name);
}

#[test]
fn dnsmasq_directives_block_allow_or_give_an_address() {
    let dnsmasq = Syntax::Dnsmasq;
    gives("address=/x.example/", dnsmasq, &["Block x.example. AtAndBelow"]);
    gives("local=/x.example/", dnsmasq, &["Block x.example. AtAndBelow"]);
    gives("server=/x.example/", dnsmasq, &["Block x.example. AtAndBelow"]);
    gives("server=/x.example/#", dnsmasq, &["Allow x.example. AtAndBelow"]);
    gives("address=/x.example/#", dnsmasq, &["Block x.example. AtAndBelow"]);
    gives(
        "address=/a.example/*.b.example/::",
        dnsmasq,
        &["Block a.example. AtAndBelow", "Block b.example. Below"],
    );
    gives("address=/#/0.0.0.0", dnsmasq, &["Block . AtAndBelow"]);
    gives(
        "address=/x.example/192.0.2.7",
        dnsmasq,
        &[r"Local x.example. AtAndBelow 1 10 \xc0\x00\x02\x07"],
    );
    gives("# comment", dnsmasq, &[]);
    finds("server=/x.example/192.0.2.1", dnsmasq, Finding::Directive);
    finds("server=192.0.2.1", dnsmasq, Finding::Directive);
    finds("ipset=/x.example/blocked", dnsmasq, Finding::Directive);
    finds("domain-needed", dnsmasq, Finding::Directive);
    finds("address=x.example", dnsmasq, Finding::Incomplete);
    finds("address=/x.example/nowhere", dnsmasq, Finding::Address);
    finds("address=/a..b/", dnsmasq, Finding::Name);
}

#[test]
fn policy_zone_has_all_triggers_and_actions() {
    let text = br#"$TTL 300
@ IN SOA localhost. root.localhost. (
    1 3600 600 86400 60 ) ; serial and so on
  IN NS localhost.
nx.example CNAME .
*.nx.example CNAME .
nodata.example CNAME *.
pass.example CNAME rpz-passthru.
self.example CNAME self.example.
drop.example CNAME rpz-drop.
tcp.example CNAME rpz-tcp-only.
local.example 60 A 192.0.2.1
local.example AAAA 2001:db8::1
garden.example CNAME *.Walled.example.
24.0.2.0.192.rpz-ip CNAME .
128.1.zz.db8.2001.rpz-ip CNAME *.
ns.evil.example.rpz-nsdname CNAME .
*.evil.example.rpz-nsdname CNAME .
8.0.0.0.10.rpz-client-ip CNAME rpz-drop.
* CNAME rpz-passthru.
"#;
    let (rules, report) = rules(text, Syntax::Rpz);
    assert_eq!((&report.bad, &report.skipped), (&Remarks::default(), &Remarks::default()));
    assert_eq!(
        rules,
        [
            "Nxdomain nx.example. Exact",
            "Nxdomain nx.example. Below",
            "Nodata nodata.example. Exact",
            "Allow pass.example. Exact",
            "Allow self.example. Exact",
            "Drop drop.example. Exact",
            "TcpOnly tcp.example. Exact",
            r"Local local.example. Exact 1 60 \xc0\x00\x02\x01",
            r"Local local.example. Exact 28 300  \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01",
            r"Local garden.example. Exact 5 300 \x01*\x06Walled\x07example\x00",
            "Nxdomain 192.0.2.0/24 Exact",
            "Nodata 2001:db8::1/128 Exact",
            "Nxdomain ns.evil.example. Exact nsdname",
            "Nxdomain evil.example. Below nsdname",
            "Drop 10.0.0.0/8 Exact client",
            "Allow . Below",
        ]
    );
}

#[test]
fn policy_zone_is_relative_to_its_apex() {
    let text = b"$ORIGIN rpz.example.\n$TTL 1\n@ SOA . . 1 1 1 1 1\nx.test CNAME .\n\
        y.test.RPZ.example. CNAME .\nz.test. CNAME .\n";
    let (rules, report) = rules(text, Syntax::Rpz);
    assert_eq!(rules, ["Nxdomain x.test. Exact", "Nxdomain y.test. Exact"]);
    assert_eq!(report.bad.first, [Remark { line: 6, finding: Finding::Trigger }]);
}

#[test]
fn bad_entries_of_a_policy_zone_do_not_stop_it() {
    let text = b"$TTL 5\na CNAME .\nb A nonsense\nc CNAME .\n33.0.2.0.192.rpz-ip CNAME .\n\
        24.1.2.0.192.rpz-ip CNAME .\nd CNAME rpz-unheard-of.\n32.1.2.0.192.rpz-nsip CNAME .\n\
        $INCLUDE other\ne ( CNAME .\nf CNAME .\n";
    let (rules, report) = rules(text, Syntax::Rpz);
    assert_eq!(
        rules,
        ["Nxdomain a. Exact", "Nxdomain c. Exact", "Nxdomain f. Exact"].map(String::from)
    );
    let lines = |remarks: &Remarks| remarks.first.iter().map(|at| at.line).collect::<Vec<_>>();
    assert_eq!((lines(&report.bad), lines(&report.skipped)), (vec![3, 5, 6, 10], vec![7, 8, 9]));
}

#[test]
fn record_without_an_owner_is_of_the_one_before_whatever_became_of_that() {
    for (text, expected) in [
        // Not offered, and broken.
        ("a A 192.0.2.9\nb TXT \"x\"\n A 192.0.2.1\n", "a 9, b 1"),
        ("a A 192.0.2.9\nb A nonsense\n A 192.0.2.1\n A 192.0.2.2\n", "a 9, b 1, b 2"),
        ("a A 192.0.2.9\n TXT \"x\"\n A nonsense\n A 192.0.2.1\n", "a 9, a 1"),
        ("a A 192.0.2.9\n\n ; b\n  (\n )\n A 192.0.2.1\n", "a 9, a 1"),
        ("b ( A\nc TXT x\n A 192.0.2.1\n", "c 1"),
        // Relative to the origin of its own line.
        ("b TXT x\n$TTL 5\n A 192.0.2.1\n", "b 1"),
        ("b TXT x\n$ORIGIN c.rpz.invalid.\n A 192.0.2.1\na A 192.0.2.9\n", "a 9"),
        ("b A 192.0.2.9\n$ORIGIN c.rpz.invalid.\n A 192.0.2.1\n", "b 9, b 1"),
        // Nobody can tell.
        (" A 192.0.2.1\na A 192.0.2.9\n", "a 9"),
        ("a A 192.0.2.9\n\\098 TXT x\n A 192.0.2.1\n", "a 9"),
        ("a A 192.0.2.9\n(b TXT x)\n A 192.0.2.1\nc A 192.0.2.2\n A 192.0.2.3\n", "a 9, c 2, c 3"),
    ] {
        let mut found = Vec::new();
        read(text.as_bytes(), Syntax::Rpz, &mut |rule: &Rule<'_>| {
            let Owner::Name(name) = rule.owner else { return false };
            let last = rule.record.unwrap().rdata[3];
            found.push(format!("{} {last}", name.to_string().trim_end_matches('.')));
            true
        });
        assert_eq!(found.join(", "), expected, "{text}");
    }
}

#[test]
fn broken_record_changes_nothing_for_those_after_it() {
    let text =
        b"$TTL 5\na A 192.0.2.1\na A nonsense\na A 192.0.2.2\nb 7 A nonsense\nc A 192.0.2.3\n";
    let ttls = |text: &[u8]| {
        let mut ttls = Vec::new();
        read(text, Syntax::Rpz, &mut |rule: &Rule<'_>| {
            ttls.extend(rule.record.map(|record| record.ttl));
            true
        });
        ttls
    };
    assert_eq!(ttls(text), [5, 5, 5]);
    assert_eq!(ttls(&text[b"$TTL 5\n".len()..]), [3_600; 3]);
    assert_eq!(ttls(b"a 6 A 192.0.2.1\na 7 A nonsense\na A 192.0.2.2\n"), [6, 6]);
}

#[test]
fn remarks_carry_lines_and_are_bounded() {
    let mut text = b"fine.example\n".to_vec();
    text.extend(b"b..ad\n".repeat(70));
    text.extend(b"*x*\n".repeat(60));
    text.extend([b'a'; 5_000]);
    let (rules, report) = rules(&text, Syntax::Domains);
    assert_eq!(rules.len(), 1);
    assert_eq!((report.bad.count, report.bad.first.len()), (71, REMARKS_MAX));
    assert_eq!((report.skipped.count, report.skipped.first.len()), (60, REMARKS_MAX));
    assert_eq!(report.bad.first[0], Remark { line: 2, finding: Finding::Name });
    assert_eq!(report.skipped.first[0].line, 72);
}

#[test]
fn rules_without_room_are_told() {
    let mut room = 1;
    let report = read(b"a.example\nb.example\n", Syntax::Domains, &mut |_: &Rule<'_>| {
        room -= 1;
        room >= 0
    });
    assert_eq!(report.rules, 1);
    assert_eq!(report.left_out.first, [Remark { line: 2, finding: Finding::Room }]);
    assert_eq!((report.bad.count, report.skipped.count), (0, 0), "the line is good");
}
