# docs: manual pages, written in scdoc. `make docs` formats them, `make install` installs them where scdoc is there.
MANUALS = $(patsubst %.scd,%,$(notdir $(wildcard $(top_srcdir)/docs/*.scd))) hull-vmm-api.7
EXTRA_DIST += docs/interfaces.md docs/hull-vmm-api.7.scd.in

.PHONY: docs
docs: $(addprefix docs/,$(MANUALS))

# The API's has its fields from the tables that read them.
docs/hull-vmm-api.7: $(top_srcdir)/docs/hull-vmm-api.7.scd.in api-manual
	@$(MKDIR_P) docs
	$(AM_V_GEN)./api-manual < $< > $@.scd && scdoc < $@.scd > $@.tmp && mv $@.tmp $@
CLEANFILES += docs/hull-vmm-api.7.scd

# A page that cannot be formatted is found by the tests, where scdoc is there.
check-local:
	@! command -v scdoc >/dev/null || $(MAKE) docs

docs/%: $(top_srcdir)/docs/%.scd
	@$(MKDIR_P) docs
	$(AM_V_GEN)scdoc < $< > $@.tmp && mv $@.tmp $@

install-data-local: docs
	@for page in $(MANUALS); do \
		section=$${page##*.}; \
		$(MKDIR_P) "$(DESTDIR)$(mandir)/man$$section" && \
		$(INSTALL_DATA) docs/$$page "$(DESTDIR)$(mandir)/man$$section/$$page" || exit 1; \
	done
