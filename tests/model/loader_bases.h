#pragma once

#include <string>
#include <vector>

#include "lib/io/json.h"

// Small models of the families that rest on the servers' weight loaders (Family::from_loaders),
// which no golden covers: their configs alone. Sizes differ from each other, so that one in
// another's place shows.
std::vector<std::string> loader_bases();  // "bailing_moe", "grok", "grok_of_mixtral", ...

moelora::Json loader_config(const std::string& base);

// A folder with the config of one below `folder`; returns its path.
std::string write_loader_base(const std::string& folder, const std::string& base);
