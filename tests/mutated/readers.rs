//! Every reader of files given by the user, with valid files to start from.

use crate::pickles::cifar_pickle;
use crate::process::{adali, bytes, tiny, train, write_images, write_network};
use adali::backend::cpu::Cpu;
use adali::bench::report::Report;
use adali::compare::plan::{Plan, PlanFile};
use adali::compare::record::{Comparison, plan_file};
use adali::data::events::format::Format;
use adali::data::events::options::{ReadOptions, Sensor};
use adali::data::events::summary::{Frames, Summary};
use adali::data::{DataSource, Integration, Request, load, load_as};
use adali::files::{MOST_SETTINGS, read_text};
use adali::network::Model;
use adali::network::spec::NetworkSpec;
use adali::train::checkpoint::{load_model, open_model, open_state};
use adali::train::config::parse_checked;
use adali::train::run::RunFiles;
use adali::train::schema::Document;
use adali::train::{Config, Trainer};
use anyhow::Result;
use flate2::{Compression, write::GzEncoder};
use image::{ColorType, ImageFormat};
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Readers of recordings, named like their formats.
pub const FORMATS: [&str; 9] = ["n-mnist", "aedat2", "aedat3", "aedat4", "evt2", "evt3", "dat", "npz", "csv"];
/// All others.
pub const OTHERS: [&str; 16] = [
    "idx",
    "cifar10",
    "cifar100",
    "cifar10-python",
    "image-folder",
    "tiny-imagenet",
    "frames",
    "labels",
    "checkpoint",
    "state",
    "run",
    "configuration",
    "network",
    "plan",
    "baseline",
    "comparison",
];

/// Reads a file at its path.
type Read = dyn FnMut(&Path) -> Result<()>;

/// A reader, and the files to change.
pub struct Reader {
    pub files: Vec<PathBuf>,
    pub read: Box<Read>,
}

impl Reader {
    fn new(files: Vec<PathBuf>, read: impl FnMut(&Path) -> Result<()> + 'static) -> Self {
        Self { files, read: Box::new(read) }
    }

    /// The reader of this name; `folder` must be empty and is used only by it.
    pub fn new_in(folder: &Path, name: &str) -> Self {
        let at = folder.to_path_buf();
        match name {
            "idx" => {
                let packed = at.join("packed");
                write_images(&at);
                write_images(&packed);
                files_in(&packed).iter().for_each(|file| fs::write(file, gzip(&bytes(file))).unwrap());
                let files = [files_in(&at), files_in(&packed)].concat();
                Self::new(files, |file| load(DataSource::Mnist, file.parent()).map(drop))
            }
            "cifar10" | "cifar100" => cifar(&at, name == "cifar100"),
            "cifar10-python" => {
                for name in
                    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
                {
                    fs::write(at.join(name), cifar_pickle("labels", &[1, 9], 2, &[7; 2 * 3072])).unwrap();
                }
                Self::new(files_in(&at), |file| load(DataSource::Cifar10, file.parent()).map(drop))
            }
            "image-folder" => {
                let files: Vec<_> = ["train/a/1.png", "train/b/1.jpg", "test/a/1.jpg"].map(|name| at.join(name)).into();
                files.iter().for_each(|file| picture(file));
                Self::new(files, move |_| {
                    load(DataSource::ImageFolder, Some(&at)).map(drop).or_else(checked)?;
                    let request = Request { image_size: Some(5), ..Request::default() };
                    load_as(DataSource::ImageFolder, Some(&at), &request).map(drop)
                })
            }
            "tiny-imagenet" => {
                let list = at.join("val/val_annotations.txt");
                let pictures = ["train/n01/images/1.JPEG", "val/images/v.JPEG"].map(|name| at.join(name));
                pictures.iter().for_each(|file| picture(file));
                fs::write(&list, "v.JPEG\tn01\t0\t1\t2\t3\n").unwrap();
                Self::new(vec![list, pictures[0].clone()], move |_| load(DataSource::TinyImagenet, Some(&at)).map(drop))
            }
            "frames" => {
                fs::write(at.join("frames.safetensors"), frames_file()).unwrap();
                Self::new(files_in(&at), |file| load(DataSource::Frames, Some(file)).map(drop))
            }
            "labels" => {
                for name in ["gesture.aedat", "gesture_labels.csv", "trials_to_test.txt", "trials_to_train.txt"] {
                    fs::copy(tests().join("events").join(name), at.join(name)).unwrap();
                }
                let files = files_in(&at).into_iter().filter(|file| file.extension().unwrap() != "aedat").collect();
                let one = Integration { frames: 1, ..Integration::default() };
                Self::new(files, move |file| {
                    load_as(DataSource::DvsGesture, file.parent(), &Request { integration: one, ..Request::default() })
                        .map(drop)
                })
            }
            "checkpoint" => {
                let file = train(&at, "run", "--epochs 1 --limit 64").join("model.safetensors");
                let config = open_model(&file).unwrap().config().unwrap();
                let plan = config.plan(&load(DataSource::Digits, None).unwrap()).unwrap();
                let mut model = Model::new(Cpu, &config.network, plan, 4, 0).unwrap();
                Self::new(vec![file], move |file| {
                    let checkpoint = open_model(file)?;
                    checkpoint.config()?;
                    load_model(&checkpoint, &mut model)
                })
            }
            "state" => {
                let file = train(&at, "run", "--epochs 1 --limit 64 --bounds auto-track").join("state.safetensors");
                let config = open_state(&file).unwrap().0.config().unwrap();
                let mut data = load(DataSource::Digits, None).unwrap();
                let mut trainer = Trainer::new(Cpu, config, &mut data).unwrap();
                Self::new(vec![file], move |file| {
                    let (state, progress) = open_state(file)?;
                    trainer.check_progress(&progress, file)?;
                    trainer.resume(&state, progress)
                })
            }
            "run" => {
                let run = train(&at, "run", "--epochs 2 --limit 64");
                let files = files_in(&run).into_iter().filter(|file| file.extension().unwrap() != "svg").collect();
                Self::new(files, move |_| {
                    let run = RunFiles::at(run.clone());
                    run.check()?;
                    run.read_metrics(u32::MAX).map(drop)
                })
            }
            "configuration" => {
                let run = train(&at, "run", "--epochs 1 --limit 64 --bounds auto-track --per-channel");
                let data = load(DataSource::Digits, None).unwrap();
                Self::new(vec![run.join("config.toml")], move |file| Config::read(file)?.plan(&data).map(drop))
            }
            "network" => {
                let files = copied(&at, &tests().join("../docs/study/networks"), "toml");
                write_network(&at.join("network.toml"), ("", ""));
                Self::new([files, vec![at.join("network.toml")]].concat(), |file| {
                    let text = read_text(file, MOST_SETTINGS)?;
                    parse_checked::<NetworkSpec>(Document::Network, &text, "the network").map(drop)
                })
            }
            "plan" => {
                let usual = usual(&at);
                Self::new(copied(&at, &tests().join("../docs/study"), "toml"), move |file| plan(file, &usual).map(drop))
            }
            "baseline" => {
                let files = copied(&at, &tests().join("../docs/bench"), "json");
                Self::new(files, |file| {
                    let report = Report::read(file)?;
                    for record in &report.results {
                        let _ = report.change(record);
                    }
                    Ok(())
                })
            }
            "comparison" => {
                let usual = usual(&at);
                let compared =
                    "compare --quiet --out all --seeds 1 --surrogates adali,arctan --epochs 1 --limit 64 --channels 8";
                adali(&at, compared).done();
                let all = at.join("all");
                let run = all.join("arctan/seed-0");
                let files = [plan_file(&all), run.join("probe.json"), run.join("result.json"), run.join("config.toml")];
                Self::new(files.into(), move |_| {
                    let place = Comparison::enter(&all)?;
                    Comparison::open(place, plan(&plan_file(&all), &usual)?).map(drop)
                })
            }
            format => recordings(&at, format),
        }
    }
}

/// Recordings of a format, summarised and drawn as `adali events` does it, also with the options that a user may give.
fn recordings(folder: &Path, format: &str) -> Reader {
    use clap::ValueEnum;
    let format = Format::from_str(format, false).unwrap();
    let mut files = Vec::new();
    for from in ["events", "cases/events", "cases/npz-dtypes", "cases/text-t-x-y-p"] {
        for file in files_in(&tests().join(from)) {
            let name = file.file_name().unwrap().to_str().unwrap().to_string();
            let other = name.contains("expected") || name.contains("trials") || name.contains("labels");
            let same = Format::of(&file).is_ok_and(|found| found == format);
            if same && !other && bytes(&file).len() < 10_000 {
                let to = folder.join(format!("{}-{name}", from.replace('/', "-")));
                fs::copy(&file, &to).unwrap();
                files.push(to);
            }
        }
    }
    let mut options = vec![ReadOptions::default()];
    match format {
        Format::Aedat2 => options.push(ReadOptions { sensor: Some(Sensor::Davis346), ..ReadOptions::default() }),
        Format::Csv | Format::Npz => {
            let columns = Some("t_s,x,y,p".parse().unwrap());
            options.push(ReadOptions { columns, ..ReadOptions::default() });
        }
        _ => {}
    }
    Reader::new(files, move |file| {
        Format::of(file).map(drop).or_else(checked)?;
        for options in &options {
            let read = || {
                let summary = Summary::of(&mut *format.open(file, options)?, |_| {})?;
                Frames::of(&mut *format.open(file, options)?, &summary, 8, 64).map(drop)
            };
            read().or_else(checked)?;
        }
        format.open(file, &options[0]).map(drop)
    })
}

/// A proper user error is not a fault of the reader.
fn checked(error: anyhow::Error) -> Result<()> {
    if adali::error::exit_code(&error) == 2 { Ok(()) } else { Err(error) }
}

fn plan(file: &Path, usual: &Config) -> Result<Plan> {
    let plan = PlanFile::read(file)?;
    plan.runs()?;
    plan.data()?;
    let base = plan.base(usual)?;
    let seeds = plan.seeds.clone().unwrap_or(vec![0]);
    Plan::new(seeds, plan.reach.unwrap_or(0.5), String::new(), plan.configurations(&base)?)
}

/// A complete configuration.
fn usual(folder: &Path) -> Config {
    adali(folder, &tiny("usual", "--epochs 1 --limit 64")).done();
    Config::read(&folder.join("usual/config.toml")).unwrap()
}

fn cifar(folder: &Path, hundred: bool) -> Reader {
    let record = |label: u8| [if hundred { vec![3, label] } else { vec![label] }, vec![label; 3072]].concat();
    let files: &[&str] = match hundred {
        true => &["train.bin", "test.bin"],
        false => &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"],
    };
    for name in files {
        fs::write(folder.join(name).with_extension("bin"), [record(1), record(9)].concat()).unwrap();
    }
    if hundred {
        let names: String = (0..100).map(|class| format!("name {class}\n")).collect();
        fs::write(folder.join("fine_label_names.txt"), names).unwrap();
    }
    let source = if hundred { DataSource::Cifar100 } else { DataSource::Cifar10 };
    Reader::new(files_in(folder), move |file| load(source, file.parent()).map(drop))
}

/// Writes a small picture in the format of the file's name.
fn picture(file: &Path) {
    let bytes: Vec<u8> = (0..9 * 7 * 3).map(|i| (i * 37 % 251) as u8).collect();
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let format =
        if file.extension().is_some_and(|found| found == "png") { ImageFormat::Png } else { ImageFormat::Jpeg };
    image::save_buffer_with_format(file, &bytes, 9, 7, ColorType::Rgb8, format).unwrap();
}

fn frames_file() -> Vec<u8> {
    let tensors: [(&str, &[usize], Vec<u8>); 4] = [
        ("train.frames", &[3, 2, 2, 3, 4], (0..144).collect()),
        ("train.labels", &[3], vec![1, 0, 2]),
        ("test.frames", &[2, 2, 2, 3, 4], (0..96).collect()),
        ("test.labels", &[2], vec![2, 1]),
    ];
    let view = |(name, shape, data)| (name, TensorView::new(Dtype::U8, <[usize]>::to_vec(shape), data).unwrap());
    serialize(tensors.iter().map(|(name, shape, data)| view((*name, *shape, data))), None).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The files of a folder, sorted by name.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Copies files with this extension and returns their paths.
fn copied(to: &Path, from: &Path, extension: &str) -> Vec<PathBuf> {
    let chosen = files_in(from).into_iter().filter(|file| file.extension().is_some_and(|found| found == extension));
    let copy = |file: PathBuf| {
        let to = to.join(file.file_name().unwrap());
        fs::copy(file, &to).unwrap();
        to
    };
    chosen.map(copy).collect()
}
