#include "lib/adapter/foreign/up_down.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "lib/adapter/config/adapter_config.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/names/config_kinds.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/cast.h"
#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

using Entry = TensorMap::value_type;

struct Ending {
  std::string_view text;
  UpDownPart part;
};

// The older ones of diffusers first: "to_q_lora.down" is no module "to_q_lora".
constexpr std::array<Ending, 12> kEndings = {{{".lora_down.weight", UpDownPart::down},
                                              {".lora_up.weight", UpDownPart::up},
                                              {".lora_linear_layer.down.weight", UpDownPart::down},
                                              {".lora_linear_layer.up.weight", UpDownPart::up},
                                              {".lora.down.weight", UpDownPart::down},
                                              {".lora.up.weight", UpDownPart::up},
                                              {"_lora.down.weight", UpDownPart::down},
                                              {"_lora.up.weight", UpDownPart::up},
                                              {".lora_down", UpDownPart::down},
                                              {".lora_up", UpDownPart::up},
                                              {".alpha", UpDownPart::alpha},
                                              {".dora_scale", UpDownPart::dora_scale}}};

constexpr std::array<std::string_view, 5> kMarks = {".lora_down", ".lora_up", ".lora_mid",
                                                    "lora.down", "lora.up"};

// What the file holds of one module; its names stay those of the map that is read.
struct Pair {
  const Entry* down = nullptr;
  const Entry* up = nullptr;
  const Entry* alpha = nullptr;
};

template <class T>
double number(const std::vector<std::byte>& bytes) {
  T out{};
  std::memcpy(&out, bytes.data(), sizeof out);
  return static_cast<double>(out);
}

// An alpha is saved in the dtype of the weights, or as the Python number that it was.
double value_of(const Entry& alpha) {
  const Tensor& tensor = alpha.second;
  if (tensor.elements() != 1)
    throw Error(alpha.first + " " + to_string(tensor.shape()), "is an alpha of several numbers",
                "an alpha is one number: save the adapter again");
  if (tensor.dtype() == DType::I64) return number<int64_t>(tensor.read());
  if (tensor.dtype() == DType::I32) return number<int32_t>(tensor.read());
  const bool real = tensor.dtype() == DType::F64 || tensor.dtype() == DType::F32 ||
                    tensor.dtype() == DType::F16 || tensor.dtype() == DType::BF16;
  if (!real)
    throw Error(alpha.first, fmt::format("is an alpha of dtype {}", dtype_name(tensor.dtype())),
                "expected F32, F16, BF16, F64, I64 or I32");
  return read_double(tensor).front();
}

// A 1x1 convolution is the same product as a Linear; any other is none.
Tensor without_kernel(const Entry& entry) {
  const Tensor& tensor = entry.second;
  if (tensor.rank() != 4) return tensor;
  if (tensor.dim(2) != 1 || tensor.dim(3) != 1)
    throw Error(entry.first + " " + to_string(tensor.shape()),
                "is a factor of a convolution, which no adapter of a language model has",
                "leave the convolutions out when training");
  return tensor.reshape({tensor.dim(0), tensor.dim(1)});
}

int64_t rank_of(const Tensor& down) { return down.rank() < 2 ? 0 : down.dim(down.rank() == 3); }

// MODULE.lora_down.0.weight
bool is_split(std::string_view name) {
  const size_t weight = name.rfind(".weight");
  if (weight == std::string_view::npos || weight + 7 != name.size()) return false;
  const std::string_view before = name.substr(0, weight);
  return parse_index(leaf_of(before)) && has_any(parent_of(before), {".lora_down", ".lora_up"});
}

[[noreturn]] void refuse(const Entry& entry, UpDownPart part) {
  if (part == UpDownPart::dora_scale)
    throw Error(entry.first,
                "is a scale of DoRA, taken over other axes than PEFT's, so PEFT's form has no "
                "place for it",
                "merge the adapter into its base model with its trainer and serve that model");
  if (has_any(entry.first, {".lora_mid"}))
    throw Error(entry.first, "is the core of a factored convolution (LoCon, Tucker)",
                "leave the convolutions out when training");
  if (is_split(entry.first))
    throw Error(entry.first,
                "is of one of several parts of a module, trained apart (split_qkv, split_dims of "
                "kohya's and musubi's scripts for image and video models)",
                "join them first: lora_down of all parts one below the other, lora_up of each in "
                "its own rows and columns of one matrix, alpha times the number of parts");
  throw Error(entry.first, "is neither lora_down.weight, lora_up.weight nor alpha of a module",
              "save the adapter with one lora_down and one lora_up for each module");
}

class Reader {
 public:
  Reader(const ForeignAdapter& in, bool (*owns)(std::string_view), const HubModule& hub_module,
         Translation& out)
      : in_(in),
        owns_(owns),
        hub_module_(hub_module),
        out_(out),
        has_config_(has_peft_keys(in.config)) {}

  void read() {
    for (const Entry& entry : in_.tensors) sort(entry);
    for (auto& [module, pair] : pairs_)
      if (!pass_on(pair)) translate(module, pair);
    check_config();
    note();
    if (told_ == 0 || untold_.empty()) return;
    const AdapterConfig config = parse_adapter_config(in_.config, in_.where);
    for (const std::string& hub : untold_) out_.alphas[hub] = config.scaling(hub).alpha;
  }

 private:
  void sort(const Entry& entry) {
    const auto [module, part] = split_up_down(entry.first);
    switch (part) {
      case UpDownPart::down:
        return keep(entry, pairs_[module].down);
      case UpDownPart::up:
        return keep(entry, pairs_[module].up);
      case UpDownPart::alpha:
        return keep(entry, pairs_[module].alpha);
      case UpDownPart::none:
        if (owns_(entry.first)) refuse(entry, part);
        out_.tensors.emplace(entry);
        return;
      case UpDownPart::dora_scale:
      case UpDownPart::unread:
        refuse(entry, part);
    }
  }

  static void keep(const Entry& entry, const Entry*& slot) {
    if (slot != nullptr)
      throw Error(entry.first, fmt::format("is the same factor as {}", slot->first),
                  "keep one of the two");
    slot = &entry;
  }

  // "alpha" may be the parameter of a module that was saved whole.
  bool pass_on(const Pair& pair) {
    if (pair.down != nullptr || pair.up != nullptr) return false;
    if (owns_(pair.alpha->first))
      throw Error(pair.alpha->first, "has no lora_down and no lora_up beside it",
                  "save the adapter again: a pair needs both");
    out_.tensors.emplace(*pair.alpha);
    return true;
  }

  void translate(std::string_view module, const Pair& pair) {
    if (pair.down == nullptr || pair.up == nullptr) {
      const bool up = pair.down != nullptr;
      throw Error((up ? pair.down : pair.up)->first,
                  fmt::format("has no lora_{} beside it", up ? "up" : "down"),
                  "save the adapter again: a pair needs both");
    }
    const std::string hub = hub_module_(pair.down->first, module);
    const Tensor down = without_kernel(*pair.down);
    set_alpha(hub, pair.alpha, rank_of(down));
    put(out_, pair.down->first, lora_name(hub, Side::A), down);
    put(out_, pair.up->first, lora_name(hub, Side::B), without_kernel(*pair.up));
  }

  // An alpha that is 0 or not there is the rank: no scaling. Where a PEFT config is, it says what
  // the file does not.
  void set_alpha(const std::string& hub, const Entry* alpha, int64_t rank) {
    if (alpha == nullptr) {
      if (has_config_)
        untold_.push_back(hub);
      else
        out_.alphas[hub] = static_cast<double>(rank);
      return;
    }
    const double value = value_of(*alpha);
    if (!std::isfinite(value))
      throw Error(alpha->first, fmt::format("is {}", value), "an alpha is a finite number");
    ++told_;
    zeros_ += value == 0;
    out_.alphas[hub] = value == 0 ? static_cast<double>(rank) : value;
  }

  // An alpha beside its factors means alpha / r.
  void check_config() const {
    const Json* rs = has_config_ && told_ > 0 ? in_.config.find("use_rslora") : nullptr;
    if (rs != nullptr && rs->is(Json::Kind::boolean) && rs->as_bool())
      throw Error(place_of(*rs, in_.where),
                  "\"use_rslora\" is true, and the weights hold alphas that mean alpha / r",
                  "leave adapter_config.json or the alphas out, whichever is not the training's");
  }

  void note() {
    if (zeros_ > 0)
      out_.notes.push_back(
          fmt::format("{} 0: read as the rank, as kohya's scripts do",
                      zeros_ == 1 ? "1 alpha is" : fmt::format("{} alphas are", zeros_)));
    const Json* said = has_config_ ? in_.config.find("lora_alpha") : nullptr;
    if (said == nullptr || !said->is_number()) return;
    const auto differs = static_cast<size_t>(
        std::count_if(out_.alphas.begin(), out_.alphas.end(),
                      [&](const auto& entry) { return entry.second != said->as_double(); }));
    if (differs > 0)
      out_.notes.push_back(fmt::format(
          "{} modules have another alpha in the weights than adapter_config.json says: the "
          "weights count",
          differs));
  }

  const ForeignAdapter& in_;
  bool (*owns_)(std::string_view);
  const HubModule& hub_module_;
  Translation& out_;
  bool has_config_;
  std::map<std::string_view, Pair> pairs_;  // by what stands for the module
  size_t told_ = 0, zeros_ = 0;             // alphas
  std::vector<std::string> untold_;         // modules without one, beside a PEFT config
};

}  // namespace

UpDownName split_up_down(std::string_view name) {
  UpDownName out{name, UpDownPart::none};
  for (const Ending& ending : kEndings)
    if (name.size() > ending.text.size() && name.ends_with(ending.text)) {
      out = {name.substr(0, name.size() - ending.text.size()), ending.part};
      break;
    }
  for (const std::string_view mark : kMarks)
    if (out.module.find(mark) != std::string_view::npos) return {name, UpDownPart::unread};
  return out;
}

Json up_down_config(const ForeignAdapter& in) {
  if (!in.config.is(Json::Kind::null)) return in.config;
  std::map<int64_t, size_t> ranks;
  for (const auto& [name, tensor] : in.tensors)
    if (split_up_down(name).part == UpDownPart::down) ++ranks[rank_of(tensor)];
  ranks.erase(0);
  if (ranks.empty())
    throw Error(in.where, "is not there, and no lora_down.weight tells the rank",
                "save the adapter again with its lora_down and lora_up");
  const auto most = std::max_element(
      ranks.begin(), ranks.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return peft_config(in.where, most->first, static_cast<double>(most->first));
}

void read_up_down(const ForeignAdapter& in, bool (*owns)(std::string_view),
                  const HubModule& hub_module, Translation& out) {
  Reader(in, owns, hub_module, out).read();
}

}  // namespace moelora
