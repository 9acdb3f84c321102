//! What the documents point to is there: files, headings, tests by their names, commands, keys of the config, endpoints.
//!
//! Addresses elsewhere are not looked up.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

#[path = "docs/commands.rs"]
mod commands;
#[path = "docs/endpoints.rs"]
mod endpoints;
#[path = "docs/keys.rs"]
mod keys;

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut faults = Vec::new();
    for page in pages() {
        for link in links(&read(&page)).into_iter().filter(|link| !is_elsewhere(&link.target)) {
            let (path, heading) = link.target.split_once('#').unwrap_or((&link.target, ""));
            let file = if path.is_empty() { page.clone() } else { page.parent().expect("a file").join(path) };
            if !file.exists() {
                faults.push(format!("{}: {} is not there", page.display(), link.target));
            } else if !heading.is_empty() && !headings(&read(&file)).contains(heading) {
                faults.push(format!("{}: {} has no such heading", page.display(), link.target));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn links_to_tests_name_one_that_is_in_the_file() {
    let page = root().join("docs/compare.md");
    let links = links(&read(&page));
    let sources: Vec<&Link> =
        links.iter().filter(|link| link.target.ends_with(".rs") && !is_elsewhere(&link.target)).collect();
    assert!(sources.len() > 50, "{} links to tests", sources.len());
    for link in sources {
        let there = tests(&read(&page.parent().expect("a file").join(&link.target)));
        assert!(there.contains(&link.title), "{}: no test {:?}", link.target, link.title);
    }
}

#[test]
fn tests_that_documents_name_exist() {
    let all: BTreeSet<String> = sources(&root().join("crates")).iter().flat_map(|file| tests(&read(file))).collect();
    let mut named = 0;
    for page in pages() {
        let text = read(&page);
        for (words, section) in sections(&text) {
            for name in section.split('`').skip(1).step_by(2).filter(|word| is_name(word, words)) {
                named += 1;
                assert!(all.contains(name), "{}: no test {name:?}", page.display());
            }
        }
    }
    assert!(named > 30, "{named} names of tests");
}

#[test]
fn each_cell_of_the_comparison_says_where_it_is_from() {
    let text = read(&root().join("docs/compare.md"));
    let defined: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).collect();
    let mut used = BTreeSet::new();
    let mut rows = 0;
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [feature, others @ .., ours] = cells.as_slice() else { panic!("an empty row") };
        assert_eq!(others.len(), 6, "{feature}");
        rows += 1;
        for cell in others {
            let keys: Vec<&str> = cell.split('[').skip(1).filter_map(|rest| rest.split(']').next()).collect();
            assert!(!keys.is_empty() || *cell == "?" || cell.starts_with("no"), "{feature}: {cell:?} has no source");
            used.extend(keys);
        }
        assert!(ours.contains("](") || ours.starts_with("no"), "{feature}: {ours:?} leads nowhere");
    }
    assert!(rows > 70, "{rows} rows");
    assert_eq!(used, defined.into_keys().collect(), "sources used and sources listed");
}

/// `[text](target "title")`, or `[key]: target`.
struct Link {
    target: String,
    title: String,
}

fn links(text: &str) -> Vec<Link> {
    let prose = without_code(text);
    let inline = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(inside, _)| inside);
    let defined = prose.lines().filter_map(|line| Some(line.strip_prefix('[')?.split_once("]: ")?.1));
    inline.chain(defined).map(link).collect()
}

fn link(inside: &str) -> Link {
    let (target, title) = inside.split_once(' ').unwrap_or((inside, ""));
    Link { target: target.to_owned(), title: title.trim_matches('"').to_owned() }
}

/// The text less its blocks of code, where brackets are no links.
fn without_code(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

fn is_elsewhere(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

/// The anchors of a page, as GitHub makes them of headings.
fn headings(text: &str) -> BTreeSet<String> {
    without_code(text)
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
        .map(anchor)
        .collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// Test functions: those whose attributes hold `test]`, or `test(`, in the lines before.
fn tests(text: &str) -> BTreeSet<String> {
    let mut is_test = false;
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            is_test |= line.contains("test]") || line.contains("test(");
        } else if let Some((_, rest)) = line.split_once("fn ") {
            if is_test {
                names.extend(rest.split('(').next().map(str::to_owned));
            }
            is_test = false;
        }
    }
    names
}

/// The sections of a page, each with the number of words from which on a name in it is a test's: three where tests are the
/// topic, six elsewhere, for keys and counters have fewer.
fn sections(text: &str) -> impl Iterator<Item = (usize, String)> {
    let sections = without_code(text).split("\n#").map(str::to_owned).collect::<Vec<String>>();
    sections.into_iter().map(|section| {
        (if section.lines().next().is_some_and(|line| line.contains("tested")) { 3 } else { 6 }, section)
    })
}

/// Tests are named by sentences.
fn is_name(word: &str, words: usize) -> bool {
    word.split('_').count() >= words && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Markdown of the repository but what is built or hidden.
fn pages() -> Vec<PathBuf> {
    files(&root(), "md")
}

fn sources(under: &Path) -> Vec<PathBuf> {
    files(under, "rs")
}

fn files(under: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(under).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(files(&path, extension));
        } else if path.is_file() && path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found
}
