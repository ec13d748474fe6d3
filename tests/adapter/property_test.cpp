// Every layout x every family of the catalogue, and those that rest on loaders, x {per expert,
// shared outer} x dtypes: a fresh adapter is written in one layout, converted to another, and
// decoded by tests/adapter/decode.cpp; its deltas are those of the factors it was made of.

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "lib/adapter/init.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/model/base_model.h"
#include "tests/adapter/decode.h"
#include "tests/model/loader_bases.h"

using namespace moelora;
using namespace moelora::test;

namespace {

namespace fs = std::filesystem;

struct TempFolder {
  std::string path;
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "moelora_property_XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~TempFolder() { fs::remove_all(path); }
};

std::vector<std::string> families() {
  std::set<std::string> out;
  for (const auto& entry : fs::directory_iterator(std::string(MOELORA_TEST_DATA "/catalogue")))
    out.insert(entry.path().string());
  return {out.begin(), out.end()};
}

Matrix matrix(const Tensor& t) { return {t.dim(0), t.dim(1), read_double(t)}; }

Matrix delta(const Tensor& a, const Tensor& b, double scale) {
  const Matrix ma = matrix(a), mb = matrix(b);
  Matrix out{mb.rows, ma.cols, std::vector<double>(static_cast<size_t>(mb.rows * ma.cols))};
  for (int64_t o = 0; o < mb.rows; ++o)
    for (int64_t k = 0; k < ma.rows; ++k)
      for (int64_t i = 0; i < ma.cols; ++i) out.at(o, i) += scale * mb.at(o, k) * ma.at(k, i);
  return out;
}

// Deltas of the factors themselves, before any layout saw them. The fresh adapter of an unfused
// layout holds gate and up apart.
std::map<std::string, Matrix> made(const Adapter& adapter) {
  std::map<std::string, Matrix> out;
  for (const auto& entry : adapter.dense)
    out[entry.first] = delta(entry.second.a, entry.second.b, entry.second.scaling.value());
  for (const auto& entry : adapter.experts)
    for (int64_t e = 0; e < adapter.expert_count; ++e) {
      const std::string name = std::string(projection_name(entry.first.projection));
      out["layer " + std::to_string(entry.first.layer) + " expert " + std::to_string(e) + " " +
          name.substr(0, name.size() - 5)] =
          delta(entry.second.a.at(e), entry.second.b.at(e), entry.second.scaling_of(e).value());
    }
  return out;
}

WriteFolderOptions quick() {
  WriteFolderOptions out;
  out.output.durable = false;
  return out;
}

void check_against(const std::map<std::string, Matrix>& expected, const std::string& folder,
                   const ModelSpec& spec, const Layout& layout) {
  DecodeOptions decode;
  decode.experts = spec.experts;
  decode.layout = layout.id;
  decode.interleaved = spec.gate_up_order == GateUpOrder::interleaved;
  const auto found = decode_deltas(folder, decode);
  double worst = 0;
  size_t compared = 0;
  for (const auto& entry : found) {
    const LinearSpec* linear = spec.find_linear(entry.first);
    const auto it = expected.find(linear != nullptr ? linear->memory : entry.first);
    if (it == expected.end()) continue;
    ++compared;
    worst = std::max(worst, relative_error(entry.second, it->second));
  }
  CHECK(compared == expected.size());
  CHECK(found.size() == expected.size());
  CHECK(worst <= 1e-12);
}

// A layout with one gate_up whose order is the family's, where the family's file does not say it.
bool needs_order(const ModelSpec& spec, const Layout& layout) {
  return layout.fused && !layout.gate_up_order && !spec.gate_up_order;
}

void check_family(const std::string& base, bool shared_outer, DType dtype, int64_t rank) {
  const ModelSpec spec = open_base(base).spec;
  TempFolder temp;
  InitOptions init;
  init.base = base;
  init.rank = rank;
  init.alpha = 2.0 * static_cast<double>(rank);
  init.targets = {"attention", "experts"};
  init.to = "stacked";
  init.seed = 7;
  init.random_b = true;
  init.shared_outer = shared_outer;
  init.dtype = dtype;
  const Conversion fresh = make_adapter(init);
  write_conversion(fresh, temp.path + "/first", quick());
  const auto expected = made(fresh.adapter);
  check_against(expected, temp.path + "/first", spec, layout_by_id("stacked"));

  std::string previous = temp.path + "/first";
  for (const Layout* layout : all_layouts()) {
    CAPTURE(layout->id);
    const bool gateless = !spec.gated && layout->fused;
    if (gateless || (layout->id == "shared-outer" && !shared_outer)) continue;
    PlanOptions options;
    options.to = layout->id;
    options.load.base = base;
    const std::string out = temp.path + "/" + std::string(layout->id);
    if (needs_order(spec, *layout)) {
      CHECK_THROWS_WITH_AS(plan_conversion(previous, options),
                           doctest::Contains("nothing says in which order"), Error);
      continue;
    }
    Conversion c = plan_conversion(previous, options);
    CHECK(c.input.layout != nullptr);
    write_conversion(c, out, quick());
    check_against(expected, out, spec, *layout);
    previous = out;  // from layout to layout: a chain through all of them
  }
}

}  // namespace

TEST_CASE("a chain through every layout keeps the deltas of every family") {
  for (const std::string& base : families())
    for (bool shared_outer : {false, true}) {
      CAPTURE(base);
      CAPTURE(shared_outer);
      check_family(base, shared_outer, DType::F32, 3);
    }
}

TEST_CASE(
    "so it is of the families that rest on loaders, but for layouts that need what none says") {
  const TempFolder temp;
  for (const std::string& base : loader_bases())
    for (bool shared_outer : {false, true}) {
      CAPTURE(base);
      CAPTURE(shared_outer);
      check_family(write_loader_base(temp.path, base), shared_outer, DType::F32, 3);
    }
}

TEST_CASE("every float type keeps its bits through every layout") {
  const std::string catalogue = std::string(MOELORA_TEST_DATA "/catalogue/");
  for (const char* family : {"gpt_oss", "qwen3_moe", "mixtral"})
    for (DType dtype : {DType::F16, DType::BF16})
      for (bool shared_outer : {false, true}) {
        CAPTURE(family);
        check_family(catalogue + family, shared_outer, dtype, 2);
      }
}
