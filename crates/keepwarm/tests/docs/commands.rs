//! Commands that the documents show are commands: each `keepwarm ...` in a block of shell is read as the binary would read it.

use keepwarm::cli;

use super::{pages, read};

#[test]
fn commands_that_documents_show_are_taken() {
    let mut shown = 0;
    let mut faults = Vec::new();
    for page in pages() {
        for line in shell(&read(&page)) {
            let Some(words) = words(&line) else { continue };
            shown += 1;
            // Where a build has no browsers or SSH, its commands are there all the same.
            if let Err(error) = cli::command().try_get_matches_from(&words)
                && error.use_stderr()
            {
                faults.push(format!("{}: {line}\n{error}", page.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(shown > 50, "{shown} commands");
}

/// The lines of the blocks that are marked as shell, or show a session of one.
fn shell(text: &str) -> Vec<String> {
    let blocks = text.split("```").skip(1).step_by(2);
    let shell =
        blocks.filter_map(|block| block.split_once('\n').filter(|(mark, _)| matches!(mark.trim(), "sh" | "console")));
    shell.flat_map(|(_, lines)| lines.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// What a shell would hand over; `None` for what is no command of ours, or stands for one (`keepwarm pools ...`).
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let end = [" #", " |", " >", " <", " &", ";"].iter().filter_map(|stop| line.find(stop)).min();
    let line = &line[..end.unwrap_or(line.len())];
    let words: Vec<String> = line.split_whitespace().map(|word| word.trim_matches(['\'', '"']).to_owned()).collect();
    (words.first().is_some_and(|word| word == "keepwarm") && !line.contains("...")).then_some(words)
}
