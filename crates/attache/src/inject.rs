//! `attache inject` and `attache uninject`: see [`attache_kubernetes::inject`].
//!
//! Manifests are written to standard output (or, with `--write`, to their files); what happened to each object is written to standard
//! error. The exit code is 0 if every object that should have attache has it, 3 if an object can't have it, and 1 if something can't be
//! read.

use std::{
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use attache_kubernetes::inject::{
    self, ContainerMode, InjectedText, InjectionOutcome, InjectionReport, InjectionSettings, PodTemplate,
    SETTINGS, TextFormat,
};
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, ValueEnum};
use similar::TextDiff;

use crate::error::AnyError;

/// The exit code if an object can't have attache.
const REFUSED: u8 = 3;

/// `attache inject`
#[derive(Debug, Args)]
pub(crate) struct InjectArgs {
    #[command(flatten)]
    files: InjectFiles,
    /// A kind of custom resource and where its pod template is, such as `Widget.example.com=spec.template`; `*` is every item of a list.
    #[arg(long = POD_TEMPLATE, value_name = "KIND.GROUP=PATH", value_parser = PodTemplate::parse)]
    pod_template: Vec<PodTemplate>,
    #[command(flatten)]
    settings: SettingFlags,
}

/// `attache uninject`
#[derive(Debug, Args)]
pub(crate) struct UninjectArgs {
    #[command(flatten)]
    files: InjectFiles,
}

/// The input, and where the result goes.
#[derive(Debug, Args)]
struct InjectFiles {
    /// Manifests: files, folders (their .yaml, .yml and .json, with all folders in them), `-` for standard input (the default).
    #[arg(value_name = "FILE")]
    paths: Vec<PathBuf>,
    /// Format of the output. Default: that of the input.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<OutputFormat>,
    /// Print what would change, as a unified diff.
    #[arg(long, conflicts_with_all = ["output", "write"])]
    diff: bool,
    /// Change the files instead of printing.
    #[arg(long, conflicts_with = "output")]
    write: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OutputFormat {
    Yaml,
    Json,
}

/// One flag for each setting, with the description of the setting.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingFlags(Vec<(String, String)>);

/// Selects a mode that the cluster supports.
const VERSION: &str = "kubernetes-version";
/// Where the pods are in a kind that attache doesn't know.
const POD_TEMPLATE: &str = "pod-template";

impl Args for SettingFlags {
    fn augment_args(mut command: clap::Command) -> clap::Command {
        let defaults = InjectionSettings::default().shown();
        for ((name, form, what), (_, default)) in SETTINGS.iter().zip(defaults) {
            let (form, what) = match *name {
                "config" => ("FILE", "a config file; its text is put into the annotation attache.dev/config"),
                _ => (*form, *what),
            };
            let what =
                if default.is_empty() { what.to_owned() } else { format!("{what} [default: {default}]") };
            command = command.arg(
                Arg::new(*name)
                    .long(*name)
                    .value_name(form)
                    .help(what)
                    .action(ArgAction::Set)
                    .help_heading("Settings (a pod's annotations attache.dev/NAME override)"),
            );
        }
        command.arg(
            Arg::new(VERSION)
                .long(VERSION)
                .value_name("VERSION")
                .help("version of the cluster: before 1.29, mode container")
                .conflicts_with("mode")
                .help_heading("Settings (a pod's annotations attache.dev/NAME override)"),
        )
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let names = SETTINGS.iter().map(|(name, ..)| *name).chain([VERSION]);
        for name in names {
            if let Some(value) = matches.get_one::<String>(name) {
                self.0.push((name.to_owned(), value.clone()));
            }
        }
        Ok(())
    }
}

impl SettingFlags {
    /// The settings.
    pub(crate) fn settings(&self) -> Result<InjectionSettings, AnyError> {
        let mut settings = InjectionSettings::default();
        for (name, value) in &self.0 {
            match name.as_str() {
                VERSION => {
                    if before_native(value)
                        .ok_or(format!("--{VERSION}: `{value}` isn't a version such as 1.28"))?
                    {
                        settings.mode = ContainerMode::Container;
                    }
                }
                "config" => {
                    let text =
                        fs::read_to_string(value).map_err(|error| format!("--config {value}: {error}"))?;
                    settings.set(name, &text).map_err(|wrong| format!("--config {value}: {wrong}"))?;
                }
                _ => settings.set(name, value).map_err(|wrong| format!("--{name}: {wrong}"))?,
            }
        }
        Ok(settings)
    }
}

/// Whether the version is older than the first one with native sidecars on by default.
fn before_native(version: &str) -> Option<bool> {
    let mut numbers = version.trim_start_matches('v').split(['.', '+', '-']).map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((major, minor) < (1, 29))
}

/// Runs `attache inject`.
pub(crate) fn inject(options: &InjectArgs) -> Result<ExitCode, AnyError> {
    ended(options.settings.settings().and_then(|mut settings| {
        settings.pod_templates.clone_from(&options.pod_template);
        all(&options.files, |text| inject::inject(text, &settings))
    }))
}

/// Runs `attache uninject`.
pub(crate) fn uninject(options: &UninjectArgs) -> Result<ExitCode, AnyError> {
    ended(all(&options.files, inject::uninject))
}

fn ended(result: Result<bool, AnyError>) -> Result<ExitCode, AnyError> {
    Ok(if result? { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// A text and its source.
struct InjectInput {
    name: String,
    file: Option<PathBuf>,
    text: String,
    /// The file itself was named. A folder of manifests may also contain other files.
    is_named: bool,
}

/// Whether there is more than comments and document marks: a chart may render to nothing.
fn has_content(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .any(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("---"))
}

/// Reads and processes everything before anything is written. Returns false if an object was refused.
fn all(files: &InjectFiles, work: impl Fn(&str) -> Result<InjectedText, String>) -> Result<bool, AnyError> {
    let inputs = inputs(&files.paths)?;
    if files.write && inputs.iter().any(|input| input.file.is_none()) {
        return Err("--write changes files, and standard input is not a file".into());
    }
    let format = files.output.map(|format| match format {
        OutputFormat::Yaml => TextFormat::Yaml,
        OutputFormat::Json => TextFormat::Json,
    });
    let mut done = Vec::new();
    for mut input in inputs {
        // The conversion comes first: the converted text has no aliases and no anchors, which could be in the way.
        if let Some(format) = format {
            input.text =
                inject::convert(&input.text, format).map_err(|wrong| format!("{}: {wrong}", input.name))?;
        }
        let result = work(&input.text).map_err(|wrong| format!("{}: {wrong}", input.name))?;
        if input.is_named && !result.reports.iter().any(InjectionReport::is_known) && has_content(&input.text)
        {
            return Err(format!(
                "{}: no Kubernetes object in it: one has `apiVersion` and `kind`",
                input.name
            )
            .into());
        }
        done.push((input, result));
    }
    let mut err = io::stderr().lock();
    let mut refused = false;
    for (input, done) in &done {
        for warning in &done.warnings {
            let _ = writeln!(err, "{}: warning: {warning}", input.name);
        }
        for report in &done.reports {
            refused |= matches!(report.outcome, InjectionOutcome::Refused(_));
            for line in report.to_string().lines() {
                let _ = writeln!(err, "{}: {line}", input.name);
            }
        }
    }
    if done.iter().any(|(_, done)| done.has_unnamed_image) {
        let _ = writeln!(err, "attache: warning: {}", inject::UNNAMED_IMAGE);
    }
    let mut out = io::stdout().lock();
    let mut texts = Vec::new();
    for (input, done) in done {
        if let Some(file) = input.file.filter(|_| files.write) {
            if done.text != input.text {
                replace(&file, &done.text)?;
            }
        } else if files.diff {
            write!(out, "{}", diff(&input.name, &input.text, &done.text))?;
        } else {
            texts.push(done.text);
        }
    }
    let mut text = joined(texts);
    if let Some(format) = format {
        text = inject::convert(&text, format)?; // several files become one List
    }
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(!refused)
}

fn inputs(files: &[PathBuf]) -> Result<Vec<InjectInput>, AnyError> {
    let mut inputs = Vec::new();
    let stdin = [PathBuf::from("-")];
    for file in if files.is_empty() { &stdin } else { files } {
        if file == Path::new("-") {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
            inputs.push(InjectInput { name: "-".to_owned(), file: None, text, is_named: true });
            continue;
        }
        let mut found = Vec::new();
        let is_folder = file.is_dir();
        if is_folder {
            manifests(file, &mut found)?;
            found.sort();
            if found.is_empty() {
                return Err(format!("{}: no .yaml, .yml or .json in it", file.display()).into());
            }
        } else {
            found.push(file.clone());
        }
        for file in found {
            let name = file.display().to_string();
            let text = fs::read_to_string(&file).map_err(|error| format!("{name}: {error}"))?;
            inputs.push(InjectInput { name, file: Some(file), text, is_named: !is_folder });
        }
    }
    Ok(inputs)
}

fn manifests(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), AnyError> {
    let wrong = |error: io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let path = entry.path();
        // A link to a folder could lead to a cycle.
        if entry.file_type().map_err(wrong)?.is_dir() {
            manifests(&path, found)?;
        } else if path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json")
            && path.is_file()
        {
            found.push(path);
        }
    }
    Ok(())
}

/// Replaces a file as a whole: a reader sees the old text or the new one, never a part.
fn replace(file: &Path, text: &str) -> Result<(), AnyError> {
    let wrong = |error: io::Error| format!("{}: {error}", file.display());
    let file = fs::canonicalize(file).map_err(wrong)?;
    // The rename below would replace a device or a pipe by a file.
    if !fs::metadata(&file).map_err(wrong)?.is_file() {
        return Err(format!("{}: it is not a regular file; leave --write out", file.display()).into());
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".attache-new");
    let new = file.with_file_name(name);
    let written = fs::write(&new, text)
        .and_then(|()| fs::set_permissions(&new, fs::metadata(&file)?.permissions()))
        .and_then(|()| fs::rename(&new, &file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    Ok(written.map_err(wrong)?)
}

fn diff(name: &str, before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let (before_name, after_name) = (format!("a/{name}"), format!("b/{name}"));
    TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(3)
        .header(&before_name, &after_name)
        .to_string()
}

/// Joins several files to one stream of documents.
fn joined(texts: Vec<String>) -> String {
    let mut whole = String::new();
    for text in texts {
        if !whole.is_empty() {
            if !whole.ends_with('\n') {
                whole.push('\n');
            }
            if !text.starts_with("---") {
                whole.push_str("---\n");
            }
        }
        whole.push_str(&text);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = replace(&pipe, "text").unwrap_err().to_string();
        assert!(error.ends_with("it is not a regular file; leave --write out"), "{error}");
        assert!(!pipe.is_file());
    }
}
