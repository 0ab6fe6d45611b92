## generate.R -- data sets and models of the reference.  Writes to generated/ beside it.  Usage:
##   OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 Rscript generate.R [regex on model names]
a <- commandArgs(FALSE); HERE <- dirname(sub("--file=", "", grep("--file=", a, value = TRUE)))
ONLY <- { x <- commandArgs(TRUE); if (length(x)) x[1] else "" }
OUT <- file.path(HERE, "generated")
for (s in c("data", "models")) dir.create(file.path(OUT, s), FALSE, TRUE)
source(file.path(HERE, "reference.R"))

## ---------------------------------------------------------------- data ----
save_data("dyestuff", dataset("lme4", "Dyestuff"), "R lme4::Dyestuff")
save_data("dyestuff2", dataset("lme4", "Dyestuff2"), "R lme4::Dyestuff2")
save_data("penicillin", dataset("lme4", "Penicillin"), "R lme4::Penicillin")
save_data("pastes", dataset("lme4", "Pastes"), "R lme4::Pastes",
          "sample = batch:cask, unique labels; cask labels are reused across batches")
save_data("sleepstudy", within(dataset("lme4", "sleepstudy"), off <- 8 * Days), "R lme4::sleepstudy",
          "off = 8*Days, added here for the offset model")
save_data("cake", dataset("lme4", "cake"), "R lme4::cake")
save_data("insteval", dataset("lme4", "InstEval")[, c("s", "d", "service", "dept", "y")], "R lme4::InstEval")
save_data("cbpp", within(dataset("lme4", "cbpp"), prop <- incidence / size), "R lme4::cbpp",
          "prop = incidence/size, added here; used with prior weights = size")
va <- dataset("lme4", "VerbAgg")
save_data("verbagg", cbind(va[, c("Anger", "Gender", "item", "id", "btype", "situ", "mode")],
                           yes = as.integer(va$r2 == "Y")), "R lme4::VerbAgg", "yes = (r2 == 'Y')")
save_data("dietox", dataset("geepack", "dietox")[, c("Pig", "Litter", "Evit", "Cu", "Time", "Start", "Weight")],
          "R geepack::dietox")
save_data("sitka", within(dataset("MASS", "Sitka"), tree <- factor(tree)), "R MASS::Sitka")
nl <- within(dataset("MASS", "nlschools"), {
  IQave <- as.numeric(tapply(IQ, class, mean)[as.character(class)]); IQ <- IQ - IQave })
for (v in c("IQ", "IQave", "SES")) nl[[v]] <- nl[[v]] - mean(nl[[v]])
save_data("nlschools", nl, "R MASS::nlschools, centred as in ?nlschools",
          "IQ = pupil IQ minus class mean, IQave = class mean IQ, SES; all three then centred")
save_data("orthodont", dataset("nlme", "Orthodont"), "R nlme::Orthodont", "Subject was an ordered factor")
save_data("machines", dataset("nlme", "Machines"), "R nlme::Machines", "Worker was an ordered factor")
save_data("scotssec", dataset("mlmRev", "ScotsSec"), "R mlmRev::ScotsSec")

## -------------------------------------------------------------- models ----
both <- function(name, ..., ml = list(), re = list()) {
  do.call(reference, c(list(paste0(name, "_reml"), ..., reml = TRUE), re))
  do.call(reference, c(list(paste0(name, "_ml"), ..., reml = FALSE), ml))
}
both("dyestuff", "dyestuff", "Yield ~ 1 + (1 | Batch)", ml = list(profile = TRUE), re = list(predict = "Batch"))
both("dyestuff2", "dyestuff2", "Yield ~ 1 + (1 | Batch)")
both("penicillin", "penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)",
     ml = list(profile = TRUE), re = list(predict = c("plate", "sample")))
reference("penicillin_plate_ml", "penicillin", "diameter ~ 1 + (1 | plate)", reml = FALSE)
reference("penicillin_sample_ml", "penicillin", "diameter ~ 1 + (1 | sample)", reml = FALSE)
both("pastes_nested", "pastes", "strength ~ 1 + (1 | batch/cask)", ml = list(profile = TRUE),
     re = list(predict = c("cask", "batch")))
both("pastes_crossed", "pastes", "strength ~ 1 + (1 | sample) + (1 | batch)", re = list(predict = "sample"))
reference("pastes_sample_ml", "pastes", "strength ~ 1 + (1 | sample)", reml = FALSE)
both("sleepstudy_int", "sleepstudy", "Reaction ~ Days + (1 | Subject)", ml = list(profile = TRUE))
both("sleepstudy_zerocorr", "sleepstudy", "Reaction ~ Days + (Days || Subject)", ml = list(profile = TRUE),
     re = list(predict = "Subject"))
both("sleepstudy_slope", "sleepstudy", "Reaction ~ Days + (Days | Subject)", ml = list(profile = TRUE),
     re = list(predict = "Subject"))
reference("sleepstudy_null_ml", "sleepstudy", "Reaction ~ 1 + (Days | Subject)", reml = FALSE)
both("sleepstudy_offset", "sleepstudy", "Reaction ~ Days + (1 | Subject)", offset = "off")
both("cake", "cake", "angle ~ recipe * temperature + (1 | recipe:replicate)", re = list(predict = "replicate"))
both("cake_temp", "cake", "angle ~ recipe + temp + (1 | recipe:replicate)")
both("cbpp_weighted", "cbpp", "prop ~ period + (1 | herd)", weights = "size")
both("dietox_int", "dietox", "Weight ~ Time + (1 | Pig)")
both("dietox_slope", "dietox", "Weight ~ Time + (Time | Pig)", ml = list(profile = TRUE), re = list(predict = "Pig"))
both("dietox_zerocorr", "dietox", "Weight ~ Time + (Time || Pig)")
both("dietox_nested", "dietox", "Weight ~ Time + (1 | Litter/Pig)")
reference("dietox_factors_reml", "dietox", "Weight ~ Time * Cu + Evit + (Time | Pig) + (1 | Litter)")
both("sitka_int", "sitka", "size ~ Time + (1 | tree)")
both("sitka_slope", "sitka", "size ~ Time + (Time | tree)")
both("orthodont_int", "orthodont", "distance ~ age * Sex + (1 | Subject)")
both("orthodont_slope", "orthodont", "distance ~ age * Sex + (age | Subject)", re = list(predict = "Subject"))
both("machines_int", "machines", "score ~ Machine + (1 | Worker)")
both("machines_nested", "machines", "score ~ Machine + (1 | Worker/Machine)", re = list(predict = "Worker"))
both("machines_vector", "machines", "score ~ Machine + (0 + Machine | Worker)")
both("scotssec", "scotssec", "attain ~ sex + (1 | primary) + (1 | second)")
reference("scotssec_cov_reml", "scotssec", "attain ~ sex + verbal + social + (verbal | primary) + (1 | second)")
reference("scotssec_primary_ml", "scotssec", "attain ~ sex + (1 | primary)", reml = FALSE)
both("nlschools", "nlschools", "lang ~ IQ * COMB + IQave + SES + (IQ | class)")
both("verbagg", "verbagg", "yes ~ Anger + Gender + btype + situ + mode + (1 | id) + (1 | item)",
     re = list(predict = c("id", "item")))

lim <- 900
both("insteval", "insteval", "y ~ service + (1 | s) + (1 | d) + (1 | dept)", limit = lim)
reference("insteval_null_ml", "insteval", "y ~ 1 + (1 | s) + (1 | d) + (1 | dept)", reml = FALSE, limit = lim)
reference("insteval_nodept_ml", "insteval", "y ~ service + (1 | s) + (1 | d)", reml = FALSE, limit = lim)
both("insteval_interaction", "insteval", "y ~ service * dept + (1 | s) + (1 | d)", limit = lim)
reference("insteval_slopes_ml", "insteval",
          "y ~ 1 + service + (1 + service | s) + (1 + service | d) + (1 | dept)", reml = FALSE, limit = lim, second = TRUE)

## ----------------------------------------------------------------- LRT ----
write_lrt(list(
  penicillin_sample = lrt("penicillin_plate_ml", "penicillin_ml"),
  penicillin_plate = lrt("penicillin_sample_ml", "penicillin_ml"),
  pastes_batch = lrt("pastes_sample_ml", "pastes_crossed_ml"),
  sleepstudy_random = lrt("sleepstudy_int_ml", "sleepstudy_zerocorr_ml", "sleepstudy_slope_ml"),
  sleepstudy_days = lrt("sleepstudy_null_ml", "sleepstudy_slope_ml"),
  cake_temperature = lrt("cake_temp_ml", "cake_ml"),
  dietox_random = lrt("dietox_int_ml", "dietox_zerocorr_ml", "dietox_slope_ml"),
  orthodont_random = lrt("orthodont_int_ml", "orthodont_slope_ml"),
  machines_random = lrt("machines_int_ml", "machines_nested_ml", "machines_vector_ml"),
  scotssec_second = lrt("scotssec_primary_ml", "scotssec_ml"),
  insteval_service = lrt("insteval_null_ml", "insteval_ml"),
  insteval_dept = lrt("insteval_nodept_ml", "insteval_ml"),
  insteval_slopes = lrt("insteval_ml", "insteval_slopes_ml")))
write_index()
