// The proof of lib/engine/sglang: what it says of every adapter of the oracle is what SGLang's own
// loading code did (commit 7d893255c of 0.5.18, 2,610 starts of a server, and 0.5.23, 2,640
// starts).

#include "tests/engine/sglang_oracle.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/engine/engine.h"
#include "lib/engine/sglang/plan.h"
#include "tests/engine/served_from_folder.h"
#include "tests/engine/sglang_compare.h"

using namespace moelora;
using namespace moelora::test;
using sglang::Launch;
using sglang::Server;

namespace {

struct Setting {
  Launch launch;
  size_t rank = 0;
};

Setting setting_of(const std::string& name) {
  Setting out;
  if (name == "R8") out.launch.max_lora_rank = 8;
  if (name.starts_with("tp2")) out.launch.tp = 2;
  if (name.starts_with("tp2ep2")) out.launch.ep = 2;
  if (name.starts_with("tp2")) out.rank = name.ends_with(".1") ? 1 : 0;
  return out;
}

std::string variant_of(const std::string& name) {
  if (name.ends_with("_q40")) return "q40";
  return "";
}

// What is not served whole, by the fates, against what is not in the oracle's pools. Tensors are
// named FILE:TENSOR where two files have one of the same name.
std::string fate_difference(const std::vector<TensorFate>& fates, const Json* lost) {
  if (lost == nullptr) return "";
  for (const TensorFate& fate : fates) {
    const Json* named = lost->find(fate.file + ":" + fate.tensor);
    const Json* found = named != nullptr ? named : lost->find(fate.tensor);
    const std::string how = found == nullptr ? "whole" : found->as_string();
    const bool agree = fate.fate == Fate::unused ? how == "none"
                       : fate.fate == Fate::cut  ? how == "part"
                                                 : how == "whole";
    if (!agree)
      return fmt::format("{} of {} is {}, in the pool {}", fate.tensor, fate.file,
                         fate_name(fate.fate), how);
  }
  return "";
}

// Returns how many records were compared.
int compare(std::string_view release) {
  int records = 0;
  for (const OracleRecord& record : sglang_records(release)) {
    const std::string adapter = record.text("adapter");
    if (adapter.empty() || sglang_disagreements().count(record.label()) != 0) continue;
    ++records;
    const Setting setting = setting_of(record.text("setting"));
    const OracleBase& base = sglang_base(record.family, variant_of(adapter));
    Server server(sglang::make_model_class(base.spec, base.config), record.features(),
                  setting.launch);
    const ServedAdapter served = served_from_folder(sglang_folder(record.family, adapter));
    server.start({&served, 1});
    server.use(0);
    std::string difference = refusal_difference(server, record);
    if (difference.empty() && !server.pools().empty())
      difference = state_difference(server, setting.rank, record.json);
    if (difference.empty() && record.text("stage").empty())
      difference = fate_difference(sglang::tensor_fates(server, 0), record.json.find("lost"));
    CHECK_MESSAGE(difference.empty(), record.label() << ": " << difference);
  }
  return records;
}

}  // namespace

TEST_CASE("the plan of every adapter of SGLang's oracle is what SGLang did with it") {
  for (const std::string_view release : kOracleReleases) {
    CAPTURE(release);
    CHECK(compare(release) == (release == "0.5.18" ? 1893 : 1923));
  }
}
