//! docker-archive: `manifest.json` lists images with the names of their files. It has no digests of the layers'
//! compressed bytes; their uncompressed ones are in the configuration, whose own digest is the image's id.

use serde::Deserialize;

use super::contents::Contents;
use super::{Error, Plan, reference};
use crate::image::manifest::MOST_CONFIG_BYTES;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// The images that `manifest.json` lists.
pub(super) fn plans(contents: &Contents, table: &[u8]) -> Result<Vec<Plan>, Error> {
    let name = "manifest.json";
    let images: Vec<Image> = serde_json::from_slice(table).map_err(|source| Error::Json {
        name: name.into(),
        source,
    })?;
    images
        .into_iter()
        .map(|image| plan(contents, image))
        .collect()
}

fn plan(contents: &Contents, image: Image) -> Result<Plan, Error> {
    let config = contents.needed(&image.config, MOST_CONFIG_BYTES)?;
    let tags = image.repo_tags.unwrap_or_default();
    let references = tags
        .iter()
        .map(|tag| reference(tag))
        .collect::<Result<_, _>>()?;
    let layers = image
        .layers
        .unwrap_or_default()
        .into_iter()
        .map(|name| (name, None))
        .collect();
    Plan::new(config, &image.config, None, layers, references)
}
