#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/io/json.h"
#include "lib/model/model_spec.h"

namespace moelora {

// A base model as --base names it.
struct BaseModel {
  ModelSpec spec;
  Json config;
  std::string origin;  // "built-in config of openai/gpt-oss-20b", "base/config.json", ...
  std::string folder;  // where its weights may be; "" for a built-in or a lone config.json
  // Found in a folder that an adapter names: its config.json and the headers of its safetensors are
  // looked at, nothing else.
  bool followed = false;
  Links links = Links::within;  // of its files, as it was opened
  // What is to be said of a family that was compared with no model: no file describes it, and the
  // weights do (lib/model/derived_family.h), or the file was read in loaders; "" for the others.
  std::string derived = {};

  // Where values may be read; "" nowhere.
  const std::string& values_folder() const;
};

// `base`: a model folder, its config.json, a built-in name, or a hub name found in the local
// Hugging Face cache: $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME or ~/.cache,
// huggingface/hub; below it models--org--name/snapshots/COMMIT, with the commit of refs/main.
// Nothing is downloaded. `model_specs` are --model-spec paths. A folder with weights whose
// model_type is unknown is read by their names and shapes. Throws Error that lists what was tried.
BaseModel open_base(const std::string& base, const std::vector<std::string>& model_specs = {},
                    Links links = Links::within);

// As open_base for what an adapter names (base_model_name_or_path): a folder with a config.json,
// relative to the working folder as PEFT takes it, where `follow` (--no-follow-base) allows that;
// else a built-in or cached hub name; nullopt for none of these.
std::optional<BaseModel> find_named_base(const std::string& name,
                                         const std::vector<std::string>& model_specs = {},
                                         bool follow = true, Links links = Links::within);

// The family file that the weights of a model folder, or of a hub name in the local cache, say by
// their names and shapes (lib/model/derived_family.h), whether or not its family is known.
Json derived_family_of(const std::string& base, Links links = Links::within);

// The hint of what does not fit the base model: it may be of another.
Hint check_base();

// "base model: base/config.json (from base_model_name_or_path)".
std::string named_base_note(const BaseModel& base);

// The base model to look at an adapter with: `base` (--base) where given, else the one that it
// names as `hint`, with a note; nullopt for neither, and, with a note too, for one whose family is
// not known.
std::optional<BaseModel> base_or_hint(const std::string& base, const std::string& hint,
                                      const std::vector<std::string>& model_specs, bool follow,
                                      std::vector<std::string>& notes, Links links = Links::within);

// Names that --base takes without a file, in order: those of schemas/builtin_models/*.json, each
// {"names": [hub names of this shape], "config": {...}}. Upper and lower case are alike, as on the
// hub.
std::vector<std::string> builtin_models();

}  // namespace moelora
