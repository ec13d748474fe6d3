#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/base/tensor.h"

// The 22 families of tests/data/catalogue.tar.xz: what real transformers 5.17 answers about a tiny
// model of each.
struct CatalogueEntry {
  std::string config;                                   // path of its config.json
  std::map<std::string, moelora::Shape> saved, memory;  // names as saved (hub form), as held
  std::vector<std::string> linear_names;                // last path components of nn.Linear modules
  std::map<std::string, std::string> classes;           // module path in memory -> Python class
};

std::vector<std::string> catalogue_families();
CatalogueEntry catalogue_entry(const std::string& family);

// The 87 of tests/data/families.tar.xz, of transformers 5.24, whose classes are the Linears alone.
std::vector<std::string> later_families();
CatalogueEntry later_entry(const std::string& family);
