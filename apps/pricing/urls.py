from django.urls import path

from apps.pricing import api

api_urlpatterns = [
    path("catalog", api.Catalog.as_view(), name="catalog"),
    path("machine-types", api.Catalog.as_view(), name="machine-types"),
    path("resources", api.Catalog.as_view(), name="resources"),
    path("resources/prices", api.PriceList.as_view(), name="resource-prices"),
    path("regions", api.RegionList.as_view(), name="regions"),
    path("regions/<str:code>", api.RegionDetail.as_view(), name="region"),
    path("pricing", api.PriceList.as_view(), name="pricing"),
    path("pricing/estimate", api.EstimateCreate.as_view(), name="pricing-estimate"),
]
