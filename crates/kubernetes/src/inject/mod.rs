//! `attache inject`: puts attache into Kubernetes objects, and takes it out again.
//!
//! `plan` decides what an object gets, for manifests here and for pods in the webhook ([`crate::review`]). This module
//! makes the edits in a text of YAML documents or JSON: every byte that isn't attache's stays. Each result is parsed
//! again and compared with the edited object. If the text of an object can't be edited exactly (because of an anchor
//! that is used elsewhere, for example), the object is refused and stays unchanged.

pub(crate) mod containers;
mod decision;
mod extra;
mod mesh;
mod names;
pub(crate) mod plan;
mod possible;
mod probes;
mod quantity;
pub(crate) mod record;
mod resources;
mod settings;
mod stream;
mod without_pod;

use std::{collections::HashMap, fmt};

use serde_json::{Value, json};

pub use crate::object::PodTemplate;
pub use names::PROBES_VARIABLE;
pub use record::MARKER;
pub use settings::{
    APP_PROBES, ContainerMode, InjectionSettings, PREFIX, SETTINGS, TrafficMode, UNNAMED_IMAGE,
};

use crate::{
    edit::{ObjectEdit, ObjectPath, apply, find},
    emit::{Style, pretty},
    object::{self, DocumentObject, ObjectKind},
    text::{StyledText, change},
    yaml::{self, Document},
};
use plan::InjectionDecision;

/// The result for a text.
#[derive(Debug)]
pub struct InjectedText {
    /// The new text; the same text if there was nothing to do.
    pub text: String,
    /// The result for each object, in their order.
    pub reports: Vec<InjectionReport>,
    /// Warnings about the text itself.
    pub warnings: Vec<String>,
    /// A pod got the image of [`InjectionSettings::default`], which is in no registry.
    pub has_unnamed_image: bool,
}

/// The result for an object.
#[derive(Clone, Debug, PartialEq)]
pub struct InjectionReport {
    /// `Deployment/web`
    pub object: String,
    /// Whether it has a `kind`.
    pub has_kind: bool,
    /// What was done, or why nothing was done.
    pub outcome: InjectionOutcome,
    /// Warnings about it.
    pub warnings: Vec<String>,
}

impl InjectionReport {
    /// Whether its kind is known: a text without a `kind` is no object, unless a setting says where its pods are.
    pub fn is_known(&self) -> bool {
        self.has_kind || !matches!(self.outcome, InjectionOutcome::Skipped(_))
    }
}

/// What was done to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectionOutcome {
    /// It got attache; the text says in which way.
    Injected(String),
    /// It had attache, and was injected again with the present settings.
    Updated(String),
    /// It has attache already, exactly as the present settings say.
    Unchanged,
    /// attache was removed.
    Removed,
    /// It isn't meant to have attache, or has none; the text says why.
    Skipped(String),
    /// It can't have attache; the text says why.
    Refused(String),
}

impl fmt::Display for InjectionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = &self.object;
        match &self.outcome {
            InjectionOutcome::Injected(how) => write!(f, "{object}: injected: {how}")?,
            InjectionOutcome::Updated(how) => write!(f, "{object}: injected again: {how}")?,
            InjectionOutcome::Unchanged => write!(f, "{object}: unchanged: it is injected")?,
            InjectionOutcome::Removed => write!(f, "{object}: attache is removed")?,
            InjectionOutcome::Skipped(why) => write!(f, "{object}: skipped: {why}")?,
            InjectionOutcome::Refused(why) => write!(f, "{object}: REFUSED: {why}")?,
        }
        self.warnings.iter().try_for_each(|warning| write!(f, "\n{object}: warning: {warning}"))
    }
}

/// A pod of a text, or an object without one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PodPath {
    /// The index of the document.
    document: usize,
    /// The object's path there.
    object: ObjectPath,
    kind: ObjectKind,
    /// The pod's path in the object.
    pod: Option<ObjectPath>,
    /// The object has several pods.
    of_several: bool,
}

/// The edits for each pod.
type PodEdits = Vec<(PodPath, Vec<ObjectEdit>)>;

/// Puts attache into every object of a text that can have it.
///
/// # Errors
/// The text is neither YAML nor JSON: where and why.
pub fn inject(text: &str, settings: &InjectionSettings) -> Result<InjectedText, String> {
    stream::each(text, |text| inject_one(text, settings))
}

fn inject_one(text: &str, settings: &InjectionSettings) -> Result<InjectedText, String> {
    let text = &*readable(text);
    let before = parsed(text)?;
    // Objects that have attache already and keep it unchanged.
    let mut keep: HashMap<PodPath, InjectionOutcome> = HashMap::new();
    loop {
        let done = inject_but(text, settings, &keep)?;
        let after = yaml::parse(&done.text)?;
        let mut more = false;
        for (place, report) in places(&before, &settings.pod_templates).into_iter().zip(&done.reports) {
            let had = pod(&before, &place).is_some_and(|pod| record::of(pod).is_some());
            if !had || keep.contains_key(&place) {
                continue;
            }
            let same = pod(&before, &place).map(normal) == pod(&after, &place).map(normal);
            let outcome = match &report.outcome {
                InjectionOutcome::Refused(_) | InjectionOutcome::Skipped(_) => report.outcome.clone(),
                _ if same => InjectionOutcome::Unchanged,
                _ => continue,
            };
            keep.insert(place, outcome);
            more = true;
        }
        if !more {
            return Ok(done);
        }
    }
}

fn inject_but(
    text: &str,
    settings: &InjectionSettings,
    keep: &HashMap<PodPath, InjectionOutcome>,
) -> Result<InjectedText, String> {
    let before = yaml::parse(text)?;
    let mut reports: HashMap<PodPath, InjectionOutcome> = keep.clone();
    let mut removals = PodEdits::new();
    let all = places(&before, &settings.pod_templates);
    for place in all.iter().filter(|place| !keep.contains_key(place)) {
        match removal(&before, place) {
            Ok(Some(edits)) => removals.push((place.clone(), edits)),
            Err(wrong) => drop(reports.insert(place.clone(), InjectionOutcome::Refused(wrong))),
            Ok(None) => {}
        }
    }
    let had: Vec<PodPath> = removals.iter().map(|(place, _)| place.clone()).collect();
    let (bare, failed) = edited(text, &before, removals)?;
    reports.extend(failed.into_iter().map(|(place, why)| (place, InjectionOutcome::Refused(why))));

    let documents = yaml::parse(&bare)?;
    let source = StyledText::new(&bare, &documents);
    let mut work = PodEdits::new();
    let mut warned: HashMap<PodPath, Vec<String>> = HashMap::new();
    let mut has_unnamed_image = false;
    // The pods before the removal, because it doesn't change which pod it is.
    for place in &all {
        if reports.contains_key(place) {
            continue;
        }
        let (Some(object), Some(document)) = (object_at(&documents, place), documents.get(place.document))
        else {
            continue;
        };
        let written = |path: &[String]| {
            source.entry(&document.root, &[place.object.as_slice(), path].concat()).map(str::to_owned)
        };
        let outcome = match plan::decide(object, &place.kind, place.pod.as_deref(), settings, &written) {
            InjectionDecision::Inject { edits, warnings, settings } => {
                work.push((place.clone(), edits));
                warned.insert(place.clone(), warnings);
                has_unnamed_image |= settings.has_unnamed_image();
                let how = how(&settings);
                if had.contains(place) {
                    InjectionOutcome::Updated(how)
                } else {
                    InjectionOutcome::Injected(how)
                }
            }
            InjectionDecision::Skip(why) => InjectionOutcome::Skipped(why),
            InjectionDecision::Refuse(why) => InjectionOutcome::Refused(why),
            InjectionDecision::Present => InjectionOutcome::Unchanged,
        };
        reports.insert(place.clone(), outcome);
    }
    let (text, failed) = edited(&bare, &documents, work)?;
    reports.extend(failed.into_iter().map(|(place, why)| (place, InjectionOutcome::Refused(why))));
    let warnings = text_warnings(&before);
    Ok(InjectedText { text, reports: ordered(&before, all, reports, warned), warnings, has_unnamed_image })
}

/// Takes attache out of every object of a text that [`inject`] or the webhook put it into.
///
/// # Errors
/// The text is neither YAML nor JSON: where and why.
pub fn uninject(text: &str) -> Result<InjectedText, String> {
    stream::each(text, uninject_one)
}

fn uninject_one(text: &str) -> Result<InjectedText, String> {
    let text = &*readable(text);
    let documents = parsed(text)?;
    let mut reports = HashMap::new();
    let mut work = PodEdits::new();
    let all = places(&documents, &[]);
    for place in &all {
        let outcome = match removal(&documents, place) {
            Ok(Some(edits)) => {
                work.push((place.clone(), edits));
                InjectionOutcome::Removed
            }
            Ok(None) => InjectionOutcome::Skipped("it has no attache".to_owned()),
            Err(wrong) => InjectionOutcome::Refused(wrong),
        };
        reports.insert(place.clone(), outcome);
    }
    let (text, failed) = edited(text, &documents, work)?;
    reports.extend(failed.into_iter().map(|(place, why)| (place, InjectionOutcome::Refused(why))));
    let warnings = text_warnings(&documents);
    let reports = ordered(&documents, all, reports, HashMap::new());
    Ok(InjectedText { text, reports, warnings, has_unnamed_image: false })
}

fn text_warnings(documents: &[Document]) -> Vec<String> {
    documents.iter().flat_map(|document| document.warnings.iter().cloned()).collect()
}

/// Reads a text that a person gave. The error about an unrendered chart names it as a chart.
fn parsed(text: &str) -> Result<Vec<Document>, String> {
    yaml::parse(text).map_err(|wrong| {
        let line_of = |mark: &str| text.lines().position(|line| line.contains(mark)).map(|index| index + 1);
        if let Some(line) = line_of("{{") {
            format!(
                "{wrong}\nthis looks like a chart's template (`{{{{` in line {line}): inject what `helm template` makes of it"
            )
        } else if let Some(line) = line_of("${") {
            format!(
                "{wrong}\nthis looks like a template (`${{` in line {line}): inject the output of envsubst, or of the program that fills it in"
            )
        } else {
            wrong
        }
    })
}

fn ordered(
    documents: &[Document],
    places: Vec<PodPath>,
    mut reports: HashMap<PodPath, InjectionOutcome>,
    mut warned: HashMap<PodPath, Vec<String>>,
) -> Vec<InjectionReport> {
    places
        .into_iter()
        .filter_map(|place| {
            let mut object = object::name(object_at(documents, &place)?, &place.kind);
            if let (true, Some(pod)) = (place.of_several, &place.pod) {
                object = format!("{object} ({})", pod.join("."));
            }
            let warnings = warned.remove(&place).unwrap_or_default();
            let has_kind = !place.kind.kind.is_empty();
            Some(InjectionReport { object, has_kind, outcome: reports.remove(&place)?, warnings })
        })
        .collect()
}

fn how(settings: &InjectionSettings) -> String {
    let mode = match settings.mode {
        ContainerMode::Native => "native sidecar",
        ContainerMode::Container => "container",
    };
    let traffic = match settings.traffic {
        TrafficMode::Explicit => "the app calls localhost:15001",
        TrafficMode::HttpProxy => "HTTP_PROXY",
        TrafficMode::Transparent => "connections are redirected",
    };
    let config = match (&settings.config_map, &settings.config) {
        (Some((name, _)), _) => format!("config from ConfigMap {name}"),
        (_, Some(_)) => "config from an annotation".to_owned(),
        _ => "no config (a forward proxy)".to_owned(),
    };
    format!("{mode}, {traffic}, {config}")
}

/// JSON that isn't YAML (mostly because of tabs) is written again.
fn readable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.trim_start().starts_with('{')
        && yaml::parse(text).is_err()
        && let Ok(value) = serde_json::from_str::<Value>(text)
    {
        return format!("{}\n", pretty(&value, 0, 2, "\n")).into();
    }
    text.into()
}

fn places(documents: &[Document], named: &[PodTemplate]) -> Vec<PodPath> {
    let mut places = Vec::new();
    for (document, tree) in documents.iter().enumerate() {
        for DocumentObject { path, kind } in object::objects(&tree.value) {
            let Some(value) = find(&tree.value, &path) else { continue };
            let pods = object::templates(value, &kind, named, MARKER);
            let of_several = pods.len() > 1;
            let mut add = |pod: Option<ObjectPath>| {
                places.push(PodPath { document, object: path.clone(), kind: kind.clone(), pod, of_several });
            };
            if pods.is_empty() {
                add(None);
            }
            for pod in pods {
                add(Some(pod));
            }
        }
    }
    places
}

fn object_at<'d>(documents: &'d [Document], place: &PodPath) -> Option<&'d Value> {
    find(&documents.get(place.document)?.value, &place.object)
}

fn pod<'d>(documents: &'d [Document], place: &PodPath) -> Option<&'d Value> {
    find(object_at(documents, place)?, place.pod.as_ref()?)
}

/// The edits of the object that take attache out of a pod of it.
fn removal(documents: &[Document], place: &PodPath) -> Result<Option<Vec<ObjectEdit>>, String> {
    match (object_at(documents, place), &place.pod) {
        (Some(object), Some(pod)) => record::removal(object, pod),
        _ => Ok(None),
    }
}

/// A pod without the parts of its record that only say how something was written.
fn normal(pod: &Value) -> Value {
    let mut normal = pod.clone();
    if let Some(Ok(record)) = record::of(pod) {
        let object = ["metadata", "annotations"].map(str::to_owned).to_vec();
        let (key, value) = (MARKER.to_owned(), record.without_raw().text().into());
        apply(&mut normal, &[ObjectEdit::Swap { object, old: key.clone(), new: key, value, raw: None }]);
    }
    normal
}

/// The edited text, and the objects whose text can't be edited.
fn edited(
    text: &str,
    documents: &[Document],
    work: PodEdits,
) -> Result<(String, Vec<(PodPath, String)>), String> {
    if let Ok(text) = attempt(text, documents, &work) {
        return Ok((text, Vec::new()));
    }
    let (mut possible, mut failed) = (PodEdits::new(), Vec::new());
    sift(text, documents, work, &mut possible, &mut failed);
    Ok((attempt(text, documents, &possible)?, failed))
}

/// Finds the few edits of many that are not possible, by halves. A single one is tried with the original YAML of its
/// entries, then without it.
fn sift(
    text: &str,
    documents: &[Document],
    mut work: PodEdits,
    possible: &mut PodEdits,
    failed: &mut Vec<(PodPath, String)>,
) {
    let Err(why) = attempt(text, documents, &work) else { return possible.append(&mut work) };
    if work.len() > 1 {
        let rest = work.split_off(work.len() / 2);
        sift(text, documents, work, possible, failed);
        return sift(text, documents, rest, possible, failed);
    }
    for (place, edits) in work {
        let plain = vec![(place.clone(), edits.into_iter().map(without_raw).collect())];
        match attempt(text, documents, &plain) {
            Ok(_) => possible.extend(plain),
            Err(_) => failed.push((place, why.clone())),
        }
    }
}

fn without_raw(edit: ObjectEdit) -> ObjectEdit {
    match edit {
        ObjectEdit::Swap { object, old, new, value, .. } => {
            ObjectEdit::Swap { object, old, new, value, raw: None }
        }
        other => other,
    }
}

/// Makes all edits, and reads the result again.
fn attempt(text: &str, documents: &[Document], work: &PodEdits) -> Result<String, String> {
    if work.is_empty() {
        return Ok(text.to_owned());
    }
    let source = StyledText::new(text, documents);
    let mut changes = Vec::new();
    let mut expected: Vec<Value> = documents.iter().map(|document| document.value.clone()).collect();
    for (place, edits) in work {
        let index = place.document;
        let (Some(document), Some(value)) = (documents.get(index), expected.get_mut(index)) else {
            continue;
        };
        changes.extend(source.changes(&document.root, &place.object, edits)?);
        if let Some(object) = value.pointer_mut(&pointer(&place.object)) {
            apply(object, edits);
        }
    }
    let elsewhere = || {
        "its YAML can't be edited without changing something else (an anchor that is used again, for example): write it out, or use -o json"
            .to_owned()
    };
    let text = change(text, changes).ok_or_else(elsewhere)?;
    let read = yaml::parse(&text).map_err(|_| elsewhere())?;
    let same = read.len() == expected.len()
        && read.iter().zip(&expected).all(|(document, expected)| document.value == *expected);
    if same { Ok(text) } else { Err(elsewhere()) }
}

fn pointer(path: &[String]) -> String {
    path.split_last().map_or_else(String::new, |(last, path)| crate::edit::pointer(path, last))
}

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// YAML documents.
    Yaml,
    /// JSON; several objects become one `List`.
    Json,
}

/// The text in a format; a text that already has this format keeps every byte.
///
/// # Errors
/// The text is neither YAML nor JSON.
pub fn convert(text: &str, format: TextFormat) -> Result<String, String> {
    let pieces = stream::pieces(text);
    let is_json = pieces.len() > 1 || stream::is_json(text);
    match (format, is_json) {
        (TextFormat::Yaml, false) => Ok(text.to_owned()),
        (TextFormat::Json, true) if pieces.len() == 1 => Ok(text.to_owned()),
        (TextFormat::Yaml, true) => {
            let mut texts = Vec::new();
            for piece in pieces {
                let documents = parsed(&readable(piece))?;
                texts.extend(documents.iter().map(|document| Style::default().document(&document.value)));
            }
            Ok(texts.join("---\n"))
        }
        (TextFormat::Json, _) => {
            let mut values = Vec::new();
            for piece in pieces {
                values.extend(parsed(&readable(piece))?.into_iter().map(|document| document.value));
            }
            let value = match values.len() {
                1 => values.pop().unwrap_or_default(),
                _ => json!({"apiVersion": "v1", "kind": "List", "items": values}),
            };
            Ok(format!("{}\n", pretty(&value, 0, 2, "\n")))
        }
    }
}
