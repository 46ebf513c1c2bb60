//! `chopi report`: a page that holds together by itself, with the numbers of `compare`.

use std::fs;
use std::path::Path;

use chopi::backend::bf16;
use roxmltree::{Document, Node, ParsingOptions};
use safetensors::Dtype;
use serde_json::Value;

use crate::model::{Folder, Model, chopi, convert_well, failure, noise, row};

/// The page of a model and its quantized form.
fn report(folder: &Folder, model: &Path, quantized: &Path) -> String {
    let page = folder.path("report.html");
    let mut command = chopi(["report"]);
    command.arg(model).arg(quantized).arg("-o").arg(&page);
    let done = command.args(["--force"]).output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{stderr}");
    assert_eq!(stderr, "");
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("report.html: "), "{said}");
    fs::read_to_string(page).unwrap()
}

/// The page as XML, which is stricter than HTML.
fn parsed(page: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(page, options).unwrap()
}

fn with_id<'a, 'b>(page: &'a Document<'b>, id: &str) -> Node<'a, 'b> {
    let mut nodes = page.descendants();
    let found = nodes.find(|node| node.attribute("id") == Some(id));
    found.unwrap_or_else(|| panic!("nothing has the id {id}"))
}

fn text(node: Node<'_, '_>) -> String {
    node.descendants()
        .filter_map(|n| n.is_text().then(|| n.text())?)
        .collect()
}

/// The cells of the row of a quantized tensor.
fn cells<'a, 'b>(page: &'a Document<'b>, name: &str) -> Vec<Node<'a, 'b>> {
    cells_in(page, "tensors", name)
}

/// The cells of the row of a tensor in what has this id.
fn cells_in<'a, 'b>(page: &'a Document<'b>, id: &str, name: &str) -> Vec<Node<'a, 'b>> {
    let rows = with_id(page, id)
        .descendants()
        .filter(|n| n.has_tag_name("tr"));
    let cells = |row: Node<'a, 'b>| row.children().filter(|n| n.has_tag_name("td")).collect();
    let mut rows = rows.map(cells).filter(|cells: &Vec<_>| !cells.is_empty());
    rows.find(|cells| text(cells[0]) == name)
        .unwrap_or_else(|| panic!("no row of {name:?}"))
}

fn key(cell: Node<'_, '_>) -> f64 {
    cell.attribute("data-key").unwrap().parse().unwrap()
}

const SQNR: usize = 7;
const LARGEST: usize = 8;

fn model() -> Model {
    model_of_rows([8, 6, 5])
}

/// A model whose linear layers have so many rows.
fn model_of_rows([first, second, third]: [usize; 3]) -> Model {
    let mut outlier = noise::<f32>(&[second, 32]);
    outlier[[4, 7]] = 40.0;
    Model::new()
        .array("layers.0.weight", &noise::<f32>(&[first, 64]))
        .array("layers.1.weight", &outlier)
        .array("layers.2.weight", &noise::<bf16>(&[third, 32]))
        .array("embeddings.weight", &noise::<f32>(&[9, 4]))
        .array("layers.0.bias", &noise::<f32>(&[first]))
        .raw("ids", Dtype::I64, &[1], vec![0; 8])
}

/// As many rows as packed zero points in groups need.
const TALL: [usize; 3] = [16, 14, 13];

#[test]
fn its_numbers_are_those_of_compare() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let (q, back) = (
        folder.path("q.safetensors"),
        folder.path("back.safetensors"),
    );
    for scheme in [
        &["--symmetric", "--per-channel", "0"][..],
        &["--bits", "4", "--group-size", "20"],
        &["--bits", "3", "--per-channel", "-1"],
        &["--bits", "16"],
        &["--convention", "pychop-torch"],
    ] {
        let report_of_quantize = convert_well(
            "quantize",
            &input,
            &q,
            &[scheme, &["--json", "--force"]].concat(),
        );
        let quantize: Value = serde_json::from_str(&report_of_quantize).unwrap();
        convert_well("dequantize", &q, &back, &["--force"]);
        let compared = chopi(["compare", "--json"]).arg(&input).arg(&back).output();
        let compare: Value = serde_json::from_slice(&compared.unwrap().stdout).unwrap();

        let page = report(&folder, &input, &q);
        let page = parsed(&page);
        for name in ["layers.0.weight", "layers.1.weight", "layers.2.weight"] {
            let cells = cells(&page, name);
            let expected = row(&compare, name);
            let sqnr = expected["sqnr_db"].as_f64().unwrap_or(f64::INFINITY);
            assert_eq!(key(cells[SQNR]), sqnr, "{name} {scheme:?}");
            let largest = expected["max_abs_difference"].as_f64().unwrap();
            assert_eq!(key(cells[LARGEST]), largest, "{name} {scheme:?}");
            let bytes = row(&quantize, name)["bytes_out"].as_f64().unwrap();
            assert_eq!(key(cells[6]), bytes, "{name} {scheme:?}");
        }
        for name in ["ids", "layers.0.bias"] {
            let cells = cells_in(&page, "copied", name);
            assert_eq!(text(cells[4]), "0", "{name}");
            let bytes = row(&quantize, name)["bytes_out"].as_f64().unwrap();
            assert_eq!(key(cells[3]), bytes, "{name}");
        }
        let quantized: Vec<f64> = quantize["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|row| !row["bits"].is_null())
            // Null where every element comes back exactly.
            .filter_map(|row| row["sqnr_db"].as_f64())
            .collect();
        let mean = quantized.iter().sum::<f64>() / quantized.len() as f64;
        let worst = quantized.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!(text(with_id(&page, "tensor-count")), "4 of 6");
        assert_eq!(text(with_id(&page, "mean-sqnr")), format!("{mean:.2} dB"));
        assert_eq!(text(with_id(&page, "worst-sqnr")), format!("{worst:.2} dB"));
    }
}

#[test]
fn folders_of_compressed_tensors_have_the_same_numbers_as_files() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model_of_rows(TALL).bytes());
    let (q, out) = (folder.path("q.safetensors"), folder.path("out"));
    for bits in ["8", "4", "3"] {
        for symmetric in [&["--symmetric"][..], &[]] {
            for granularity in [&[][..], &["--per-channel", "0"], &["--group-size", "32"]] {
                let scheme = [&["--bits", bits, "--force"], symmetric, granularity].concat();
                let exclude = [
                    "--exclude",
                    "embeddings*",
                    "--convention",
                    "compressed-tensors",
                ];
                convert_well("quantize", &input, &q, &[&scheme[..], &exclude].concat());
                let format = ["--format", "compressed-tensors"];
                convert_well("quantize", &input, &out, &[&scheme[..], &format].concat());
                let pages = [&q, &out].map(|quantized| report(&folder, &input, quantized));
                let [file, compressed] = pages.each_ref().map(|page| parsed(page));
                for layer in 0..3 {
                    let name = format!("layers.{layer}.weight");
                    let (a, b) = (cells(&file, &name), cells(&compressed, &name));
                    // The format rounds scales to bf16, chopi's own keeps them in f32.
                    if layer < 2 {
                        assert_eq!(key(a[SQNR]), key(b[SQNR]), "{name} {scheme:?}");
                        assert_eq!(key(a[LARGEST]), key(b[LARGEST]), "{name} {scheme:?}");
                    }
                    assert!(text(b[3]).starts_with(&format!("{bits} bits")), "{name}");
                }
                let bytes = fs::read(out.join("model.safetensors")).unwrap();
                let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
                let total: usize = tensors.iter().map(|(_, t)| t.data().len()).sum();
                let said = text(with_id(&compressed, "bytes-after")).replace(',', "");
                assert_eq!(said, total.to_string());
            }
        }
    }
}

#[test]
fn the_worst_channels_are_named_and_the_grid_is_drawn() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let q = folder.path("q.safetensors");
    convert_well("quantize", &input, &q, &["--bits", "4", "--symmetric"]);
    let page = report(&folder, &input, &q);
    let page = parsed(&page);
    let detail = page
        .descendants()
        .find(|n| n.has_tag_name("details") && text(*n).contains("layers.1.weight"))
        .unwrap();
    let ticks = |n: Node<'_, '_>| n.attribute("class") == Some("ticks");
    let path = detail.descendants().find(|n| ticks(*n)).unwrap();
    // The range is -40..=40 but for the values, of which none is below -2: from -0.. to 40.
    let levels = path.attribute("d").unwrap().matches('M').count();
    assert!((7..=9).contains(&levels), "{levels}");
    let channels = detail
        .descendants()
        .find(|n| n.attribute("class") == Some("channels"))
        .unwrap();
    let rows: Vec<_> = channels
        .descendants()
        .filter(|n| n.has_tag_name("td"))
        .collect();
    // Six channels of four numbers; the one with the outlier is the best off.
    assert_eq!(rows.len(), 24);
    assert_eq!(text(rows[20]), "4");
}

#[test]
fn two_quantizations_stand_beside_each_other_with_their_own_numbers() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let (a, b) = (folder.path("a.safetensors"), folder.path("b.safetensors"));
    convert_well(
        "quantize",
        &input,
        &a,
        &["--symmetric", "--exclude", "layers.2*"],
    );
    let plan = folder.file(
        "plan.json",
        br#"{"layers.0.weight": 4, "layers.1.weight": 6, "layers.2.weight": 3}"#,
    );
    convert_well(
        "quantize",
        &input,
        &b,
        &["--bits-from", plan.to_str().unwrap()],
    );
    let alone = [&a, &b].map(|quantized| report(&folder, &input, quantized));
    let alone = alone.each_ref().map(|page| parsed(page));

    let page = folder.path("report.html");
    let mut command = chopi(["report", "--force"]);
    command.arg(&input).arg(&a).arg(&b).arg("-o").arg(&page);
    let done = command.output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("a.safetensors: 3 of 6") && said.contains("b.safetensors: 3 of 6"));
    let page = fs::read_to_string(page).unwrap();
    let page = parsed(&page);
    for id in ["tensor-count", "mean-sqnr", "worst-sqnr"] {
        assert_eq!(
            text(with_id(&page, id)),
            text(with_id(&alone[0], id)),
            "{id}"
        );
        let other = format!("{id}-b");
        assert_eq!(
            text(with_id(&page, &other)),
            text(with_id(&alone[1], id)),
            "{id}"
        );
    }
    for name in ["layers.0.weight", "layers.1.weight"] {
        let both = cells(&page, name);
        for (alone, at) in alone.iter().zip([5, 9]) {
            let alone = cells(alone, name);
            assert_eq!(key(both[at]), key(alone[SQNR]), "{name}");
            assert_eq!(key(both[at + 1]), key(alone[LARGEST]), "{name}");
        }
        assert_eq!(key(both[11]), key(both[9]) - key(both[5]), "{name}");
    }
    // One that only one of them has quantized.
    let both = cells(&page, "layers.2.weight");
    assert_eq!(
        (text(both[3]), text(both[7])),
        ("copied".into(), "3 bits".into())
    );
    assert_eq!(
        (text(both[5]), text(both[11])),
        ("exact".into(), String::new())
    );
    assert_eq!(text(cells_in(&page, "copied", "ids")[4]), "0, 0");
}

#[test]
fn the_mixture_of_bits_is_shown_with_round_numbers() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let q = folder.path("q.safetensors");
    let plan = folder.file(
        "plan.json",
        br#"{"layers.0.weight": 4, "layers.1.weight": 8, "layers.2.weight": 4}"#,
    );
    convert_well(
        "quantize",
        &input,
        &q,
        &["--bits-from", plan.to_str().unwrap()],
    );
    let page = report(&folder, &input, &q);
    let page = parsed(&page);
    let pictures: Vec<_> = page
        .descendants()
        .filter(|n| n.has_tag_name("figure"))
        .collect();
    let rows: Vec<String> = pictures[0]
        .descendants()
        .filter(|n| n.has_tag_name("tr"))
        .map(|row| text(row))
        .collect();
    assert!(rows[1].starts_with("4 bits2672"), "{rows:?}");
    assert!(rows[2].starts_with("8 bits1192"), "{rows:?}");
    assert!(rows[3].starts_with("copied3"), "{rows:?}");
    // The worst first, and a point for each quantized tensor.
    let links = |n: &Node<'_, '_>| n.has_tag_name("a");
    let worst: Vec<String> = pictures[1].descendants().filter(links).map(text).collect();
    assert_eq!(worst.len(), 3);
    assert_eq!(worst[2], "layers.1.weight");
    assert_eq!(pictures[2].descendants().filter(links).count(), 3);
    let numbers = pictures[2].descendants().filter(|n| n.has_tag_name("text"));
    let numbers: Vec<f64> = numbers.map(|n| text(n).parse().unwrap()).collect();
    assert!(numbers.iter().all(|n| n.fract() == 0.0), "{numbers:?}");
}

#[test]
fn names_are_shown_as_they_are_and_do_nothing() {
    let folder = Folder::new();
    let names = [
        "<script>alert(1)</script>.weight",
        "\"><img src=x onerror=alert(1)>.weight",
        "a&amp;b' onclick='x.weight",
        "]]></script><!--.weight",
        "{{ 7 * 7 }}{% raw %}.weight",
    ];
    let tensors = |model: Model, name: &&str| model.array(name, &noise::<f32>(&[3, 4]));
    let input = names.iter().fold(Model::new(), tensors).bytes();
    let input = folder.file("<b>model&.safetensors", &input);
    let q = folder.path("q.safetensors");
    convert_well("quantize", &input, &q, &[]);
    let page = report(&folder, &input, &q);
    assert_eq!(page.matches("<script>").count(), 1);
    assert_eq!(
        page.matches("<img").count() + page.matches("<b>").count(),
        0
    );
    let page = parsed(&page);
    for name in names {
        assert_eq!(text(cells(&page, name)[0]), name);
    }
    for node in page.descendants() {
        for attribute in node.attributes() {
            assert!(!attribute.name().starts_with("on"), "{attribute:?}");
        }
    }
    let control = "a\u{1b}[2J\nb\u{202e}c.weight";
    let control = Model::new().array(control, &noise::<f32>(&[3, 4]));
    let input = folder.file("control.safetensors", &control.bytes());
    convert_well("quantize", &input, &q, &["--force"]);
    let page = report(&folder, &input, &q);
    let shown = "a\\u{1b}[2J\\nb\\u{202e}c.weight";
    assert_eq!(text(cells(&parsed(&page), shown)[0]), shown);
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let q = folder.path("q.safetensors");
    convert_well("quantize", &input, &q, &[]);
    let page = report(&folder, &input, &q);
    assert!(page.starts_with("<!DOCTYPE html>\n"));
    for outside in [
        "://", "url(", "@import", "<link", "src=", "fetch(", "import(",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
    let page = parsed(&page);
    let mut ids = std::collections::BTreeSet::new();
    for node in page.descendants() {
        assert!(
            node.attribute("id").is_none_or(|id| ids.insert(id)),
            "{node:?}"
        );
    }
    for node in page.descendants() {
        if let Some(target) = node.attribute("href") {
            assert!(ids.contains(target.strip_prefix('#').unwrap()), "{target}");
        }
    }
}

#[test]
fn models_that_do_not_belong_together_are_refused() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let (q, page) = (folder.path("q.safetensors"), folder.path("report.html"));
    convert_well("quantize", &input, &q, &[]);
    let fail = |model: &Path, quantized: &Path, args: &[&str], status| {
        let mut command = chopi(["report"]);
        command
            .arg(model)
            .arg(quantized)
            .arg("-o")
            .arg(&page)
            .args(args);
        failure(command.output().unwrap(), status)
    };
    let expect = |model: &Path, quantized: &Path, said: &[&str]| {
        let error = fail(model, quantized, &[], 1);
        assert!(said.iter().all(|part| error.contains(part)), "{error}");
        assert!(!page.exists());
    };
    expect(
        &input,
        &input,
        &["model.safetensors: is not a quantized model"],
    );
    expect(&q, &q, &["q.safetensors: is quantized already"]);
    expect(&input, &folder.path("none"), &["none: cannot read"]);
    let model = |name: &str, model: Model| folder.file(name, &model.bytes());
    let one = |shape: &[usize]| Model::new().array("layers.0.weight", &noise::<f32>(shape));
    let fewer = model("fewer.safetensors", one(&[8, 64]));
    expect(
        &fewer,
        &q,
        &["q.safetensors", "there is no such tensor in", "fewer"],
    );
    let other = Model::new().array("x.weight", &noise::<f32>(&[8, 64]));
    let other = model("other.safetensors", other);
    expect(
        &other,
        &q,
        &["\"x.weight\": there is no such tensor in", "q.safetensors"],
    );
    let reshaped = model("reshaped.safetensors", one(&[4, 64]));
    expect(&reshaped, &q, &["is F32 [4, 64], but F32 [8, 64] in"]);
    let nan = |x: f32| {
        let mut data = vec![0.5; 8 * 64];
        data[9] = x;
        Model::new().floats("layers.0.weight", &[8, 64], &data)
    };
    let finite = model("finite.safetensors", nan(0.0));
    let bad = model("nan.safetensors", nan(f32::NAN));
    let q_of_one = folder.path("q1.safetensors");
    convert_well("quantize", &finite, &q_of_one, &[]);
    expect(&bad, &q_of_one, &["\"layers.0.weight\"", "NaN"]);

    let error = fail(&input, &q, &["--what"], 2);
    assert!(error.contains("--what"), "{error}");
    report(&folder, &input, &q);
    let error = fail(&input, &q, &[], 1);
    assert!(error.contains("exists already"), "{error}");
    let mut command = chopi(["report"]);
    command.arg(&input).arg(&q).arg("-o").arg(&q).arg("--force");
    let error = failure(command.output().unwrap(), 1);
    assert!(error.contains("the output is the input"), "{error}");
}

#[test]
fn a_folder_that_does_not_hold_what_it_says_is_refused() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model_of_rows(TALL).bytes());
    let out = folder.path("out");
    let args = [
        "--format",
        "compressed-tensors",
        "--bits",
        "4",
        "--group-size",
        "32",
    ];
    convert_well("quantize", &input, &out, &args);
    let fail = || {
        let mut command = chopi(["report"]);
        command
            .arg(&input)
            .arg(&out)
            .arg("-o")
            .arg(folder.path("report.html"));
        failure(command.output().unwrap(), 1)
    };
    let config = fs::read_to_string(out.join("config.json")).unwrap();
    for (from, to, said) in [
        ("\"num_bits\": 4", "\"num_bits\": 5", "has shape"),
        ("\"group_size\": 32", "\"group_size\": 16", "has shape"),
        (
            "\"strategy\": \"group\"",
            "\"strategy\": \"block\"",
            "the strategy \"block\"",
        ),
        ("compressed-tensors", "gptq", "\"quant_method\" is \"gptq\""),
        ("quantization_config", "other", "is not a quantized model"),
    ] {
        let changed = config.replace(from, to);
        assert_ne!(changed, config);
        fs::write(out.join("config.json"), changed).unwrap();
        let error = fail();
        assert!(error.contains(said), "{error}");
    }
}
