#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/engine/served_adapter.h"
#include "lib/engine/sglang/server.h"

namespace moelora::test {

// What the real server did once: a record of outcomes.json in sglang_adapters or sglang_newest.
struct OracleRecord {
  std::string release;  // "0.5.18"
  std::string family;
  Json json;

  std::string text(std::string_view key) const;  // "" when absent
  std::string label() const;                     // "gpt_oss/hand.r3/tp2.0"
  sglang::Features features() const;
};

// The releases that were run, oldest first.
inline constexpr std::string_view kOracleReleases[] = {"0.5.18", "0.5.23"};

// Every record of a release: of the first by default.
const std::vector<OracleRecord>& sglang_records(std::string_view release = kOracleReleases[0]);

// The adapter's folder: a hand-made one of the archive, or a golden.
std::string sglang_folder(const std::string& family, const std::string& adapter);

bool has_sglang_adapter(const std::string& family, const std::string& adapter);

// The base a record was made with: the golden's, with what SGLang's class needs besides.
struct OracleBase {
  ModelSpec spec;
  Json config;
};
const OracleBase& sglang_base(const std::string& family, const std::string& variant = "");

// The text with the members of each {...} sorted, so that two sets compare as sets.
std::string with_sorted_sets(const std::string& text);

}  // namespace moelora::test
