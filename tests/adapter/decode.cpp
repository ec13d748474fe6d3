#include "tests/adapter/decode.h"

#include <cmath>
#include <limits>
#include <regex>

#include "lib/adapter/config/adapter_config.h"
#include "lib/base/cast.h"
#include "lib/io/weights.h"

namespace moelora::test {
namespace {

// A factor of one expert as a plain matrix.
using Pair = std::pair<Matrix, Matrix>;  // A [r, in], B [out, r]

Matrix product(const Pair& pair, double scale) {
  const Matrix &a = pair.first, &b = pair.second;
  Matrix out{b.rows, a.cols, std::vector<double>(static_cast<size_t>(b.rows * a.cols))};
  for (int64_t o = 0; o < b.rows; ++o)
    for (int64_t k = 0; k < a.rows; ++k)
      for (int64_t i = 0; i < a.cols; ++i) out.at(o, i) += scale * b.at(o, k) * a.at(k, i);
  return out;
}

Matrix transposed(const Matrix& m) {
  Matrix out{m.cols, m.rows, std::vector<double>(m.data.size())};
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t c = 0; c < m.cols; ++c) out.at(c, r) = m.at(r, c);
  return out;
}

Matrix rows(const Matrix& m, int64_t first, int64_t step, int64_t count) {
  Matrix out{count, m.cols, std::vector<double>(static_cast<size_t>(count * m.cols))};
  for (int64_t r = 0; r < count; ++r)
    for (int64_t c = 0; c < m.cols; ++c) out.at(r, c) = m.at(first + r * step, c);
  return out;
}

struct Decoder {
  DecodeOptions options;
  AdapterConfig config;
  std::map<std::string, std::pair<Shape, std::vector<double>>> tensors;
  std::map<std::string, Matrix> out;

  double scale(const std::string& path) const {
    if (options.server_scale) return config.lora_alpha / static_cast<double>(config.r);
    return config.scaling(path).value();
  }

  // Element [e, r, c] of a tensor that is 2-D or 3-D with a leading E or 1.
  Matrix slab(const std::string& name, int64_t e) const {
    const auto& [shape, data] = tensors.at(name);
    const size_t d = shape.size() - 2;
    const int64_t n = shape[d], m = shape[d + 1];
    const int64_t lead = d == 0 || shape[0] == 1 ? 0 : e;
    const auto begin = data.begin() + static_cast<std::ptrdiff_t>(lead * n * m);
    return {n, m, std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(n * m))};
  }

  void put(const std::string& layer, int64_t e, const std::string& proj, const Matrix& delta) {
    out["layer " + layer + " expert " + std::to_string(e) + " " + proj] = delta;
  }

  void put_fused(const std::string& layer, int64_t e, const Matrix& delta, bool interleaved) {
    const int64_t half = delta.rows / 2;
    put(layer, e, "gate", interleaved ? rows(delta, 0, 2, half) : rows(delta, 0, 1, half));
    put(layer, e, "up", interleaved ? rows(delta, 1, 2, half) : rows(delta, half, 1, half));
  }

  // A of expert e is rows e*r .. of the stacked A; B's column is k*E + e, or e*r + k.
  Pair stacked_pair(const std::string& stem, int64_t e) const {
    const Matrix a = slab(stem + ".lora_A.weight", 0), b = slab(stem + ".lora_B.weight", 0);
    const int64_t r = a.rows / options.experts;
    Matrix ae{r, a.cols, std::vector<double>(static_cast<size_t>(r * a.cols))};
    Matrix be{b.rows, r, std::vector<double>(static_cast<size_t>(b.rows * r))};
    for (int64_t k = 0; k < r; ++k) {
      for (int64_t i = 0; i < a.cols; ++i) ae.at(k, i) = a.at(e * r + k, i);
      const int64_t column = options.expert_major ? e * r + k : k * options.experts + e;
      for (int64_t o = 0; o < b.rows; ++o) be.at(o, k) = b.at(o, column);
    }
    return {ae, be};
  }

  void peft_params(const std::string& prefix, const std::string& stem, const std::string& layer) {
    const bool nested = tensors.count(prefix + stem + ".base_layer.lora_A.weight") != 0;
    for (const bool inner : {false, true}) {
      if (inner && !nested) continue;
      const bool down = nested ? inner == options.base_layer_is_down : options.lone == "down_proj";
      const std::string name = prefix + stem + (inner ? ".base_layer" : "");
      const double s = scale(stem + (down ? ".down_proj" : ".gate_up_proj"));
      for (int64_t e = 0; e < options.experts; ++e) {
        Matrix delta = product(stacked_pair(name, e), s);
        if (options.swapped) delta = transposed(delta);
        if (down)
          put(layer, e, "down", delta);
        else
          put_fused(layer, e, delta, options.interleaved);
      }
    }
  }
};

std::string gate_up_down(const std::string& word) {
  if (word == "gate_proj" || word == "w1" || word == "linear") return "gate";
  if (word == "up_proj" || word == "w3" || word == "linear_v") return "up";
  return word == "gate_up_proj" ? "gate_up" : "down";
}

}  // namespace

std::map<std::string, Matrix> decode_deltas(const std::string& folder,
                                            const DecodeOptions& options) {
  const std::string config = folder + "/adapter_config.json";
  Decoder d{options, parse_adapter_config(read_json_file(config), config), {}, {}};
  const Weights weights = open_weights(folder, {"adapter_model"});
  for (const auto& entry : weights.tensors)
    d.tensors[entry.first] = {entry.second.shape(), read_double(entry.second)};
  const std::regex name("(base_model\\.model\\.)(.*)\\.lora_A\\.weight");
  const std::regex expert("(.*layers\\.(\\d+)\\..*experts)(?:\\.(.*))?");
  for (const auto& entry : d.tensors) {
    std::smatch m, x;
    if (!std::regex_match(entry.first, m, name)) continue;
    const std::string module = m[2], stem = m[1].str() + module;
    const bool routed =
        std::regex_match(module, x, expert) && module.find("shared_experts") == std::string::npos;
    if (!routed) {
      const std::string parameter = module + ".weight";
      bool listed = false;
      for (const std::string& t : d.config.target_parameters)
        listed = listed || parameter == t || parameter.ends_with("." + t);
      d.out[module] =
          product({d.slab(stem + ".lora_A.weight", 0), d.slab(stem + ".lora_B.weight", 0)},
                  d.scale(listed ? parameter : module));
      continue;
    }
    const std::string layer = x[2], rest = x[3];
    if (options.layout == "peft-params") {
      if (rest.empty()) d.peft_params(m[1], x[1], layer);
      continue;
    }
    const size_t dot = rest.find('.');
    const bool numbered = dot != std::string::npos;
    const std::string proj = gate_up_down(numbered ? rest.substr(dot + 1) : rest);
    const double scale = d.scale(
        numbered ? module
                 : x[1].str() + "." + (proj == "gate_up" ? "gate_up_proj" : proj + "_proj"));
    const int64_t first = numbered ? std::stoll(rest.substr(0, dot)) : 0;
    for (int64_t e = first; e < (numbered ? first + 1 : options.experts); ++e) {
      const Matrix delta =
          product({d.slab(stem + ".lora_A.weight", e), d.slab(stem + ".lora_B.weight", e)}, scale);
      if (proj == "gate_up")
        d.put_fused(layer, e, delta, false);
      else
        d.put(layer, e, proj, delta);
    }
  }
  return d.out;
}

double relative_error(const Matrix& a, const Matrix& b) {
  if (a.rows != b.rows || a.cols != b.cols) return std::numeric_limits<double>::infinity();
  double diff = 0, norm = 0;
  for (size_t i = 0; i < a.data.size(); ++i) {
    diff += (a.data[i] - b.data[i]) * (a.data[i] - b.data[i]);
    norm += b.data[i] * b.data[i];
  }
  return norm == 0 ? std::sqrt(diff) : std::sqrt(diff / norm);
}

}  // namespace moelora::test
