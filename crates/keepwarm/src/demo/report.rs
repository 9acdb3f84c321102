//! The report page: one HTML file that needs nothing else, neither a network nor a script.
//!
//! Words and figures are those of `words`, the charts are in `chart`; here they are put on a page that can be read in light
//! and dark, on a phone and on paper.

mod chart;

use super::{
    result::DemoResult,
    words::{self, ANSWERS, COSTS, Column, NAMES, Promise},
};

/// The page.
pub(super) fn page(result: &DemoResult) -> String {
    let fill = |template: &str, parts: &[(&str, String)]| {
        parts.iter().fold(template.to_owned(), |page, (name, text)| page.replace(name, text))
    };
    let verdict = if result.ok { "Every promise was kept." } else { "Not every promise was kept." };
    let json = serde_json::to_string_pretty(result).unwrap_or_else(|error| error.to_string());
    let [load @ .., columns] = words::load(result);
    fill(
        include_str!("report/page.html"),
        &[
            ("{{style}}", include_str!("report/style.css").to_owned()),
            ("{{load}}", paragraph(&load)),
            ("{{columns}}", escape(&columns)),
            ("{{savings}}", list(&words::savings(result))),
            ("{{charts}}", chart::all(result)),
            ("{{table}}", table(result)),
            ("{{notes}}", list(&words::notes(result))),
            ("{{verdict}}", escape(verdict)),
            ("{{promises}}", promises(result)),
            ("{{ending}}", paragraph(&words::ending(result).lines().map(str::to_owned).collect::<Vec<_>>())),
            ("{{version}}", escape(result.version)),
            ("{{json}}", escape(&json)),
        ],
    )
}

fn table(result: &DemoResult) -> String {
    let columns: Vec<&Column> = NAMES.iter().chain(&ANSWERS).chain(&COSTS).collect();
    let headings = columns.iter().map(|(heading, _)| format!("<th scope=\"col\">{}</th>", escape(heading)));
    let mut html = format!("<thead><tr>{}</tr></thead>\n", headings.collect::<String>());
    for pair in result.runs.chunks(2) {
        html += "<tbody>\n";
        for run in pair {
            let cells = columns.iter().map(|(_, text)| format!("<td>{}</td>", escape(&text(run))));
            let class = if run.reuse { "pooled" } else { "off" };
            html += &format!("<tr class=\"{class}\">{}</tr>\n", cells.collect::<String>());
        }
        html += "</tbody>\n";
    }
    html
}

fn promises(result: &DemoResult) -> String {
    let rows = words::promises(result).into_iter().map(|Promise { ok, words, figures }| {
        let (class, verdict) = if ok { ("yes", "yes") } else { ("no", "no") };
        let (words, figures) = (escape(&words), escape(&figures));
        format!("<tr><td class=\"{class}\">{verdict}</td><td>{words}</td><td>{figures}</td></tr>\n")
    });
    rows.collect()
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("<li>{}</li>\n", escape(line))).collect()
}

fn paragraph(lines: &[String]) -> String {
    escape(&lines.join(" "))
}

/// Text that stands for itself in HTML, also within an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{super::result::tests::demo, *};

    #[test]
    fn the_page_is_whole_and_needs_nothing_else() {
        let page = page(&demo());
        assert!(!page.contains("{{") && !page.contains("}}"), "every place is filled");
        assert_eq!(page.matches("<svg").count(), 4);
        assert_eq!(page.matches("</svg>").count(), 4);
        assert_eq!(page.matches("<tr class=\"pooled\">").count(), 4);
        for outside in ["src=", "href=", "url(", "@import", "<script", "https://", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        // The one address is the name of the SVG language, which nobody fetches.
        assert_eq!(page.matches("http://").count(), page.matches("http://www.w3.org/2000/svg").count());
        for figure in ["27 TLS handshakes instead of 11,000", "60.4", "only 974 of 1000 clients"] {
            assert!(page.contains(figure), "{figure}");
        }
    }

    #[test]
    fn what_an_upstream_wrote_stays_text() {
        let mut demo = demo();
        demo.runs[0].burst.first_wrong = Some("<script>alert(\"x\")</script> & more {{json}}".into());
        let page = page(&demo);
        assert!(!page.contains("<script"));
        assert!(page.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; more"));
    }

    #[test]
    fn figures_that_are_missing_are_missing_on_the_page() {
        let mut demo = demo();
        for run in &mut demo.runs {
            (run.total.cpu, run.paced.warm) = (None, None);
        }
        assert!(page(&demo).contains("<td>n/a</td>"));
    }
}
