#include "lib/check/many/opened_bases.h"

#include "lib/io/file.h"
#include "lib/model/family.h"

namespace moelora {
namespace {

// An unknown family is what an adapter of it is told; what else `open` throws is the caller's.
template <class F>
OpenedBase opened(F&& open) {
  OpenedBase out;
  try {
    out.model = open();
  } catch (const UnknownFamily& error) {
    out.error = error;
    out.class_name = error.architecture;
  }
  return out;
}

}  // namespace

const std::shared_ptr<const BaseHeaders>& OpenedBase::headers(std::string& note) {
  if (!read_) {
    if (model) headers_ = read_base_headers(*model, note_);
    read_ = true;
  }
  note = note_;
  return headers_;
}

void OpenedBase::give_to(Deployment& deployment) const {
  deployment.base = model;
  deployment.base_error = error;
  deployment.base_class = class_name;
}

OpenedBase& OpenedBases::given() {
  if (!given_)
    given_ = opened([&] { return open_base(load_.base, load_.model_specs, load_.links); });
  return *given_;
}

OpenedBase& OpenedBases::named(const std::string& name) {
  const auto known = named_.find(name);
  if (known != named_.end()) return known->second;
  OpenedBase out;
  if (!name.empty()) try {
      out = opened(
          [&] { return find_named_base(name, load_.model_specs, load_.follow_base, load_.links); });
    } catch (const MachineError&) {
      throw;
    } catch (const Error& error) {
      out.error = error;
    }
  return named_.emplace(name, std::move(out)).first->second;
}

OpenedBase& OpenedBases::of(const Subject& adapter) {
  return load_.base.empty() ? named(named_base(adapter)) : given();
}

std::string named_base(const Subject& adapter) {
  const Json* name = adapter.config.find("base_model_name_or_path");
  return name != nullptr && name->is(Json::Kind::string) ? name->as_string() : "";
}

}  // namespace moelora
