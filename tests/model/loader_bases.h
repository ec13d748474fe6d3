#pragma once

#include <string>
#include <vector>

#include "lib/io/json.h"
#include "lib/model/base_model.h"

// Small models of the families that rest on the servers' weight loaders (Family::from_loaders),
// which no golden covers: their configs alone. Sizes differ from each other, so that one in
// another's place shows.
std::vector<std::string> loader_bases();  // "bailing_moe", "grok", "grok_of_mixtral", ...

bool is_loader_base(const std::string& name);

moelora::Json loader_config(const std::string& base);

// Without a file of it.
moelora::BaseModel loader_model(const std::string& base);

// `changes`: a JSON object that is merged into the config.
moelora::ModelSpec loader_spec(const std::string& base, const std::string& changes = "{}");

// A folder with the config of one below `folder`; returns its path.
std::string write_loader_base(const std::string& folder, const std::string& base);
