//! `attache import`: converts a config of another proxy to one of attache.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use attache_import::{Impact, ProxyKind, verify};
use serde_json::json;

use crate::cli;

type ImportFailure = Box<dyn std::error::Error>;

/// Runs the command. The exit code is the grade: 0 nothing was lost, 3 something minor was lost, 4 something important was lost; 1 is an
/// error.
pub(crate) fn run(options: &cli::ImportArgs) -> Result<ExitCode, ImportFailure> {
    let files = attache_import::read(&options.files)?;
    let kind = match options.from {
        Some(kind) => kind.kind(),
        None if files.iter().any(|file| is_ours(&file.text)) => {
            return Err("this is already a config of attache: `attache check FILE` checks it".into());
        }
        None => attache_import::detect(&files).ok_or(
            "attache doesn't recognise which proxy this config is for: add `--from envoy`, `haproxy`, `nginx`, `istio`, `stunnel` or `ghostunnel`",
        )?,
    };
    if options.verify {
        return compare(kind, &files, options);
    }
    let imported = attache_import::import(kind, &files)?;
    if let Some(path) = &options.write {
        std::fs::write(path, &imported.text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if options.format.is_json() {
        writeln!(io::stdout(), "{:#}", as_json(&imported))?;
        return Ok(ExitCode::from(imported.grade.exit_code()));
    }
    if options.write.is_none() {
        io::stdout().write_all(imported.text.as_bytes())?;
    }
    let lost = imported.remarks.iter().filter(|remark| remark.weight != attache_import::Impact::Note).count();
    let losses = if lost == 1 { "loss" } else { "losses" };
    writeln!(io::stderr(), "{}; {lost} {losses}, each a comment at its place", imported.grade)?;
    Ok(ExitCode::from(imported.grade.exit_code()))
}

/// Upstreams by name: no other proxy has them in this form.
fn is_ours(text: &str) -> bool {
    text.lines().any(|line| {
        line.split('#').next().unwrap_or(line).trim_end() == "upstreams:" || line.starts_with("upstreams: {")
    })
}

/// The config and every remark, each with its place in the original.
fn as_json(imported: &attache_import::Imported) -> serde_json::Value {
    let remarks: Vec<_> = imported
        .remarks
        .iter()
        .map(|remark| {
            let weight = match remark.weight {
                Impact::Note => "note",
                Impact::Soft => "soft",
                Impact::Point => "point",
            };
            json!({ "at": remark.at.to_string(), "weight": weight, "text": remark.text })
        })
        .collect();
    json!({
        "grade": imported.grade.to_string(),
        "exit_code": imported.grade.exit_code(),
        "remarks": remarks,
        "config": imported.text,
    })
}

/// Runs both side by side.
fn compare(
    kind: ProxyKind,
    files: &[attache_import::File],
    options: &cli::ImportArgs,
) -> Result<ExitCode, ImportFailure> {
    let original = match kind.program() {
        Some(name) => options.original.clone().or_else(|| in_path(name)).ok_or_else(|| {
            format!("`{name}` is not in PATH: install it, or say where it is with `--original PATH`")
        })?,
        // The objects themselves contain what is needed.
        None if kind == ProxyKind::Istio => PathBuf::new(),
        None => {
            return Err("there is nothing to compare this kind of config with: `--verify` is for Envoy, HAProxy, nginx, Istio and the Gateway API".into());
        }
    };
    let folder = std::env::temp_dir().join(format!("attache-import-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let programs = verify::Programs { original, attache: std::env::current_exe()? };
    let result = verify::verify(kind, files, &programs, &folder);
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            return Err(format!("{error}\n  their configs and logs are in {}", folder.display()).into());
        }
    };
    let _ = std::fs::remove_dir_all(&folder);
    if options.format.is_json() {
        let differences: Vec<_> = report
            .differences
            .iter()
            .map(|one| json!({ "request": one.request, "what": one.what }))
            .collect();
        let said = json!({
            "grade": report.grade.to_string(),
            "asked": report.asked,
            "equal": report.equal,
            "refused_by_the_import_alone": report.closed,
            "differences": differences,
            "not_compared": report.left_out,
        });
        writeln!(io::stdout(), "{said:#}")?;
    } else {
        io::stdout().write_all(report.text().as_bytes())?;
    }
    Ok(if report.differences.is_empty() {
        ExitCode::from(report.grade.exit_code())
    } else {
        ExitCode::from(5)
    })
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    folders.into_iter().map(|folder| folder.join(name)).find(|file| file.is_file())
}
