#include "tests/compare/made_pair.h"

#include <fmt/format.h>

#include <cstring>
#include <random>

#include "lib/base/cast.h"
#include "lib/model/base_model.h"
#include "lib/model/model_builder.h"
#include "tests/adapter/made_adapter.h"

namespace moelora::test {
namespace {

Tensor random_tensor(const Shape& shape, std::mt19937_64& rng, DType dtype) {
  Values values(static_cast<size_t>(Tensor::zeros(DType::F32, shape).elements()));
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (float& v : values) v = uniform(rng);
  const Tensor out = Tensor::of_f32(shape, values);
  return dtype == DType::F32 ? out : cast_tensors({{"t", out}}, dtype).at("t");
}

// A tensor of its own bytes, as one out of a file has.
Tensor evaluated(const Tensor& t) {
  return Tensor(std::make_shared<MemorySource>(t.dtype(), t.read()), t.shape());
}

Tensor same_matrix(const Tensor& t) { return evaluated(t); }

}  // namespace

BaseModel made_base(const std::string& family, const Dims& dims) {
  Json config = catalogue_base(family).config;
  const auto set = [&](std::initializer_list<const char*> keys, int64_t value) {
    for (const char* key : keys)
      if (config.find(key) != nullptr) config.set(key, Json(value));
  };
  set({"num_experts", "num_local_experts", "n_routed_experts"}, dims.experts);
  set({"hidden_size"}, dims.hidden);
  set({config.find("moe_intermediate_size") != nullptr ? "moe_intermediate_size"
                                                       : "intermediate_size"},
      dims.intermediate);
  set({"num_hidden_layers"}, dims.layers);
  if (config.find("mlp_only_layers") != nullptr) config.set("mlp_only_layers", Json::array());
  if (config.find("moe_layers") != nullptr) {
    std::vector<Json> all;
    for (int64_t layer = 0; layer < dims.layers; ++layer) all.emplace_back(layer);
    config.set("moe_layers", Json::array(std::move(all)));
  }
  if (config.find("layer_types") != nullptr) {
    std::vector<std::string> types(static_cast<size_t>(dims.layers), "full_attention");
    config.set("layer_types", Json::strings(types));
  }
  BaseModel out;
  out.spec = make_model_spec(config, "config.json");
  out.config = config;
  out.origin = "made";
  return out;
}

Held made_experts(const ModelSpec& spec, const MadeOptions& o) {
  std::mt19937_64 rng(o.seed);
  Held out;
  const auto add = [&](const std::string& module, Side side, Tensor t) {
    out.tensors[side == Side::A ? a_name(module) : b_name(module)] = std::move(t);
  };
  for (int layer = 0; layer < spec.layers; ++layer) {
    if (!spec.is_moe(layer)) continue;
    const std::string stem = spec.expert_stem(Form::memory, layer);
    std::map<std::string, Tensor> shared;
    for (int64_t e = 0; e < spec.experts; ++e) {
      Tensor gate_a;
      for (const Projection p : {Projection::gate, Projection::up, Projection::down}) {
        if (p == Projection::gate && !spec.gated) continue;
        const std::string module = fmt::format("{}.{}.{}", stem, e, projection_name(p));
        Tensor a = random_tensor({o.rank, spec.in_dim(p)}, rng, o.dtype);
        Tensor b = random_tensor({spec.out_dim(p), o.rank}, rng, o.dtype);
        if (o.shared_outer) {
          Tensor& outer = p == Projection::down ? b : a;
          const auto [at, fresh] =
              shared.emplace(fmt::format("{} {}", layer, projection_name(p)), outer);
          if (!fresh) outer = same_matrix(at->second);
        }
        if (p == Projection::gate) gate_a = a;
        if (p == Projection::up && o.same_a && spec.gated) a = same_matrix(gate_a);
        add(module, Side::A, a);
        add(module, Side::B, b);
      }
    }
  }
  if (o.attention)
    for (const LinearSpec& linear : spec.linears)
      if (linear.role == Role::attention) {
        add(linear.memory, Side::A, random_tensor({o.rank, linear.in}, rng, o.dtype));
        add(linear.memory, Side::B, random_tensor({linear.out, o.rank}, rng, o.dtype));
      }
  out.config = parse_json(
      fmt::format(R"({{"peft_type": "LORA", "r": {}, "lora_alpha": {}}})", o.rank, o.alpha),
      "adapter_config.json");
  return out;
}

Held converted(const Held& source, const BaseModel& base, const std::string& to,
               const LayoutWriteOptions& form, std::optional<DType> dtype) {
  AdapterFiles files;
  files.config = parse_adapter_config(source.config, "adapter_config.json");
  files.tensors = dtype ? cast_tensors(source.tensors, *dtype) : source.tensors;
  PlanOptions options;
  options.to = to;
  options.layout = form;
  const Conversion c = plan_conversion(interpret_adapter(std::move(files), base, "", {}), options);
  Held out;
  for (const auto& [name, tensor] : c.tensors) out.tensors[name] = evaluated(tensor);
  out.config = c.config;
  return out;
}

packed::Report checked(const Held& packed, const Held& source, const ModelSpec* spec, bool products,
                       const packed::Reading& reading) {
  packed::CheckOptions options;
  options.spec = spec;
  options.threads = 1;
  options.products = products;
  options.window = 512;  // so that these small tensors too are cut
  return packed::check_packed({packed.tensors, packed.config, "packed", {}},
                              {source.tensors, source.config, "source", reading}, options);
}

std::vector<std::string> fault_names(const packed::Report& report) {
  std::vector<std::string> out;
  for (const packed::Fault& fault : report.faults) out.emplace_back(row_of(fault.mistake).id);
  return out;
}

int edit(Held& held, const std::vector<std::string>& parts,
         const std::function<void(Values& values, const Shape& shape)>& change) {
  int touched = 0;
  for (auto& [name, tensor] : held.tensors) {
    bool all = true;
    for (const std::string& part : parts) all = all && name.find(part) != std::string::npos;
    if (!all) continue;
    Values values = values_of(tensor);
    change(values, tensor.shape());
    tensor = Tensor::of_f32(tensor.shape(), values);
    ++touched;
  }
  return touched;
}

Values values_of(const Tensor& tensor) {
  Values out(static_cast<size_t>(tensor.elements()));
  const std::vector<std::byte> bytes = tensor.read();
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

Tensor bf16_tensor(const Shape& shape, const std::vector<uint16_t>& bits) {
  std::vector<std::byte> bytes(bits.size() * 2);
  std::memcpy(bytes.data(), bits.data(), bytes.size());
  return Tensor(std::make_shared<MemorySource>(DType::BF16, std::move(bytes)), shape);
}

}  // namespace moelora::test
